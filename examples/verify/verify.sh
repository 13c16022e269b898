#!/bin/sh
# Verifies one request that was captured, with OpenSSL 3: says which signature fits which key, or refuses it (exit status 1).
#
#     REMORA_WEBHOOK_KEYS="whsec_… whpk_…" sh examples/verify/verify.sh HEADERS BODY
#
# HEADERS is a file with a `name: value` a line, BODY holds the bytes as they came. A subscription's public key comes with
#     curl -sS -H "Authorization: Bearer $REMORA_API_KEY" "$REMORA_URL/v1/subscriptions/sub_…"
# and the request is sent again, to try a subscriber of yours while it is fresh, with
#     curl -sS -i -H "@HEADERS" --data-binary "@BODY" http://127.0.0.1:9000/
# REMORA_NOW (seconds since 1970) judges a request that was captured earlier.
#
# OpenSSL takes the secret as an argument, which other users of the machine can see: this is for looking into a case, on a
# machine of your own; what serves requests is better written in Python, Node or Go, as in the files beside this one.
set -eu
LC_ALL=C
export LC_ALL
tolerance=300

refuse() {
    echo "refused: $1" >&2
    exit 1
}

[ $# -eq 2 ] && [ -n "${REMORA_WEBHOOK_KEYS:-}" ] || {
    echo 'usage: REMORA_WEBHOOK_KEYS="whsec_… whpk_…" sh verify.sh HEADERS BODY' >&2
    exit 2
}
headers=$1
body=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

header() { # the value of the first header of that name, in any case
    awk -v name="$1:" 'tolower(substr($0, 1, length(name))) == name {
        sub(/^[^:]*:[ \t]*/, ""); sub(/[ \t\r]*$/, ""); print; exit }' "$headers"
}

digest() { # a keyed digest with a key that nobody knows: comparing those tells nothing of what is compared
    printf '%s' "$1" | openssl dgst -sha256 -hmac "$salt"
}

fits_secret() { # KEY SIGNATURE
    key=$(printf '%s' "${1#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
    [ ${#key} -ge 48 ] && [ ${#key} -le 128 ] || refuse "a secret has 24 to 64 bytes"
    made=$(openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary "$work/content" | openssl base64 -A)
    [ "$(digest "v1,$made")" = "$(digest "$2")" ]
}

fits_public_key() { # KEY SIGNATURE
    case $2 in v1a,*) ;; *) return 1 ;; esac
    # The beginning says that an Ed25519 key of 32 bytes follows (RFC 8410).
    { printf '\060\052\060\005\006\003\053\145\160\003\041\000'; printf '%s' "${1#whpk_}" | openssl base64 -d -A; } >"$work/key"
    printf '%s' "${2#v1a,}" | openssl base64 -d -A >"$work/signature"
    openssl pkeyutl -verify -pubin -keyform DER -inkey "$work/key" -rawin -in "$work/content" -sigfile "$work/signature" \
        >"$work/said" 2>&1
}

salt=$(openssl rand -hex 32)
id=$(header webhook-id)
timestamp=$(header webhook-timestamp)
case $timestamp in
'' | *[!0-9]* | ?????????????*) refuse "webhook-timestamp is no number of seconds" ;;
esac
[ -n "$id" ] || refuse "webhook-id is missing"
now=${REMORA_NOW:-$(date +%s)}
offset=$(awk -v now="$now" -v then="$timestamp" 'BEGIN { print (now > then) ? now - then : then - now }')
[ "$offset" -le "$tolerance" ] || refuse "webhook-timestamp is $offset seconds from now"

{ printf '%s.%s.' "$id" "$timestamp"; cat "$body"; } >"$work/content"
set -f # signatures and keys are words, never patterns
fitting=0
for signature in $(header webhook-signature | cut -d ' ' -f 1-20); do
    for key in $REMORA_WEBHOOK_KEYS; do
        case $key in
        whsec_*) fits_secret "$key" "$signature" || continue ;;
        whpk_*) fits_public_key "$key" "$signature" || continue ;;
        *) refuse "a key is neither a secret (whsec_…) nor a public key (whpk_…)" ;;
        esac
        fitting=$((fitting + 1))
    done
done
[ "$fitting" -gt 0 ] || refuse "no signature fits"
echo "$id: $fitting of its signatures fit"
