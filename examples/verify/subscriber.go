// A subscriber that verifies events by itself, with Go's standard library.
//
//	REMORA_WEBHOOK_KEYS="whsec_… whpk_…" go run examples/verify/subscriber.go [PORT]
//
// Name the keys that you have, one or several: the secret (whsec_…) that a subscription showed when it was made or rotated,
// its public key (whpk_…) where its `signatures` name `v1a`. One signature that fits one key is enough, so that old and new
// keys may stand side by side during a rotation. Copy what is above `handler`; the rest is one way to serve it.
package main

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	tolerance     = 300 * time.Second // what is older was recorded, and is played again
	maxSignatures = 20                // that are looked at, whatever a stranger sends
	maxBody       = 16 << 20          // bytes
)

// check says whether a signature is one key's, over these bytes.
type check func(signature string, content []byte) bool

// checkOf tells how signatures are judged with one key.
func checkOf(key string) (check, error) {
	_, encoded, _ := strings.Cut(key, "_")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	switch {
	case err != nil:
		return nil, errors.New("a key is not base64 behind its prefix")
	case strings.HasPrefix(key, "whsec_") && len(raw) >= 24 && len(raw) <= 64:
		return func(signature string, content []byte) bool {
			mac := hmac.New(sha256.New, raw)
			mac.Write(content)
			wanted := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
			return hmac.Equal([]byte(wanted), []byte(signature)) // in constant time
		}, nil
	case strings.HasPrefix(key, "whpk_") && len(raw) == ed25519.PublicKeySize:
		return func(signature string, content []byte) bool {
			made, found := strings.CutPrefix(signature, "v1a,")
			decoded, err := base64.StdEncoding.DecodeString(made)
			return found && err == nil && ed25519.Verify(raw, content, decoded)
		}, nil
	}
	return nil, errors.New("neither a secret (whsec_…) nor a public key (whpk_…)")
}

// verify checks one message over the bytes as they came: parsed and written again they are others. It returns the event's
// id, which is the same for every repeat: handle each id once. An error is answered 401; what it says is for your log.
func verify(checks []check, header http.Header, body []byte, now time.Time) (string, error) {
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseUint(timestamp, 10, 40)
	if id == "" || err != nil {
		return "", errors.New("webhook-id or webhook-timestamp is missing or malformed")
	}
	if now.Sub(time.Unix(int64(seconds), 0)).Abs() > tolerance {
		return "", errors.New("webhook-timestamp is too far from now")
	}
	content := append([]byte(id+"."+timestamp+"."), body...)
	signatures := strings.Split(header.Get("webhook-signature"), " ")
	fits := false
	// All are compared, each in constant time: how long it takes tells nothing.
	for _, signature := range signatures[:min(len(signatures), maxSignatures)] {
		for _, check := range checks {
			if check(signature, content) {
				fits = true
			}
		}
	}
	if !fits {
		return "", errors.New("no signature fits")
	}
	return id, nil
}

// handler takes events. Only a 2xx answer counts; anything else makes Remora send it again.
func handler(checks []check) http.HandlerFunc {
	var seen sync.Map // in earnest: a table, in the transaction that handles the event
	return func(response http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, maxBody))
		if err != nil {
			response.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		id, err := verify(checks, request.Header, body, time.Now())
		if err != nil {
			fmt.Fprintln(os.Stderr, "refused:", err)
			response.WriteHeader(http.StatusUnauthorized)
			return
		}
		if _, repeated := seen.LoadOrStore(id, true); !repeated {
			var event struct{ Type string }
			if err := json.Unmarshal(body, &event); err == nil {
				fmt.Println(event.Type, id)
			}
		}
		response.WriteHeader(http.StatusNoContent)
	}
}

func main() {
	var checks []check
	for _, key := range strings.Fields(os.Getenv("REMORA_WEBHOOK_KEYS")) {
		check, err := checkOf(key)
		if err != nil {
			exit("REMORA_WEBHOOK_KEYS: " + err.Error())
		}
		checks = append(checks, check)
	}
	if len(checks) == 0 {
		exit("set REMORA_WEBHOOK_KEYS to the secrets (whsec_…) and public keys (whpk_…) that you have")
	}
	port := "9000"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		exit(err.Error())
	}
	fmt.Printf("http://%s/\n", listener.Addr())
	exit(http.Serve(listener, handler(checks)).Error())
}

func exit(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(1)
}
