// A subscriber that verifies events by itself, with what Node.js 18 or later brings along.
//
//     REMORA_WEBHOOK_KEYS="whsec_… whpk_…" node examples/verify/subscriber.mjs [PORT]
//
// Name the keys that you have, one or several: the secret (whsec_…) that a subscription showed when it was made or rotated,
// its public key (whpk_…) where its `signatures` name `v1a`. One signature that fits one key is enough, so that old and new
// keys may stand side by side during a rotation. Copy what is above `serve`; the rest is one way to serve it.

import { createHmac, createPublicKey, timingSafeEqual, verify as verifyEd25519 } from "node:crypto";
import { createServer } from "node:http";

const TOLERANCE_S = 300; // what is older was recorded, and is played again
const MAX_SIGNATURES = 20; // that are looked at, whatever a stranger sends
const MAX_BODY = 16 * 1024 * 1024; // bytes

/** The message is not Remora's, or not of now. Answer 401; what it says is for your log. */
class Refused extends Error {}

/** How signatures are judged with one key: a function of a signature and the signed bytes. */
export function checkOf(key) {
  const raw = Buffer.from(key.slice(key.indexOf("_") + 1), "base64");
  if (key.startsWith("whsec_") && raw.length >= 24 && raw.length <= 64) {
    return (signature, content) => equal(`v1,${createHmac("sha256", raw).update(content).digest("base64")}`, signature);
  }
  if (key.startsWith("whpk_") && raw.length === 32) {
    const jwk = { kty: "OKP", crv: "Ed25519", x: raw.toString("base64url") };
    const publicKey = createPublicKey({ key: jwk, format: "jwk" });
    return (signature, content) =>
      signature.startsWith("v1a,") && verifyEd25519(null, content, publicKey, Buffer.from(signature.slice(4), "base64"));
  }
  throw new Error("neither a secret (whsec_…) nor a public key (whpk_…)");
}

/** Constant time, but for the length, which is no secret. */
function equal(wanted, given) {
  const [left, right] = [Buffer.from(wanted), Buffer.from(given)];
  return left.length === right.length && timingSafeEqual(left, right);
}

/**
 * Check one message. `headers` have names in lower case, as node:http gives them. `body` is the Buffer as it came: parsed and
 * written again it is another one. Returns the event's id, which is the same for every repeat: handle each id once.
 */
export function verify(checks, headers, body, nowS = Date.now() / 1000) {
  const id = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"] ?? "";
  if (!id || !/^[0-9]{1,12}$/.test(timestamp)) {
    throw new Refused("webhook-id or webhook-timestamp is missing or malformed");
  }
  if (Math.abs(nowS - Number(timestamp)) > TOLERANCE_S) {
    throw new Refused("webhook-timestamp is too far from now");
  }
  const content = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
  const signatures = (headers["webhook-signature"] ?? "").split(" ").slice(0, MAX_SIGNATURES);
  // All are compared, each in constant time: how long it takes tells nothing.
  const matches = checks.flatMap((check) => signatures.map((signature) => check(signature, content)));
  if (!matches.includes(true)) {
    throw new Refused("no signature fits");
  }
  return id;
}

const seen = new Set(); // in earnest: a table, in the transaction that handles the event

function serve(checks, port) {
  const server = createServer((request, response) => {
    const answer = (status) => response.writeHead(status).end();
    const chunks = [];
    let size = 0;
    request.on("data", (chunk) => {
      size += chunk.length;
      if (size <= MAX_BODY) chunks.push(chunk);
    });
    request.on("end", () => {
      if (size > MAX_BODY) return answer(413);
      const body = Buffer.concat(chunks);
      let id;
      try {
        id = verify(checks, request.headers, body);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        console.error(`refused: ${error.message}`);
        return answer(401);
      }
      if (!seen.has(id)) {
        seen.add(id);
        console.log(JSON.parse(body).type, id);
      }
      return answer(204); // only a 2xx answer counts; anything else makes Remora send it again
    });
  });
  const refuse = (error) => {
    console.error(`cannot listen on port ${process.argv[2] ?? 9000}: ${error.message}`);
    process.exit(1);
  };
  server.on("error", refuse);
  if (!(port >= 0 && port < 65536)) refuse(new Error("is no port"));
  server.listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
}

let checks = [];
try {
  checks = (process.env.REMORA_WEBHOOK_KEYS ?? "").split(/\s+/).filter(Boolean).map(checkOf);
} catch (error) {
  console.error(`REMORA_WEBHOOK_KEYS: ${error.message}`);
  process.exit(1);
}
if (checks.length === 0) {
  console.error("set REMORA_WEBHOOK_KEYS to the secrets (whsec_…) and public keys (whpk_…) that you have");
  process.exit(1);
}
serve(checks, Number(process.argv[2] ?? 9000));
