// Takes a job and lists it through the types of openapi-typescript and the client openapi-fetch.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const [base, key] = process.argv.slice(2) as [string, string];
const remora = createClient<paths>({ baseUrl: base, headers: { Authorization: `Bearer ${key}` } });
const input = { model: "sparkpix", prompt: "a cat", aspect_ratio: "16:9" };

const { data: taken, error } = await remora.POST("/v1/jobs", {
  params: { header: { Prefer: "wait=30" } },
  body: { provider: "apimodels", operation: "generate", input, tags: ["a client"] },
});
if (taken === undefined) throw new Error(error.detail);
const status: components["schemas"]["JobStatus"] = taken.status;
const { data: page } = await remora.GET("/v1/jobs", {
  params: { query: { status: ["completed"], tag: "a client" } },
});
const urls: string[] = (page?.data ?? []).flatMap((job) => job.results.map((result) => result.url));
const refused = await remora.POST("/v1/jobs", { body: { provider: "nobody", input } });
console.log(status, page?.data.length, urls.length, refused.error?.status);
