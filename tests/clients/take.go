// Takes a job and lists it through the client that openapi-generator made for Go.
package main

import (
	"context"
	"fmt"
	"os"

	remora "github.com/GIT_USER_ID/GIT_REPO_ID"
)

func main() {
	settings := remora.NewConfiguration()
	settings.Servers = remora.ServerConfigurations{{URL: os.Args[1]}}
	client := remora.NewAPIClient(settings)
	ctx := context.WithValue(context.Background(), remora.ContextAccessToken, os.Args[2])

	input := map[string]interface{}{"model": "sparkpix", "prompt": "a cat", "aspect_ratio": "16:9"}
	request := remora.NewJobRequest("apimodels", input)
	request.SetOperation("generate")
	request.SetTags([]string{"a client"})
	taken, _, err := client.JobsAPI.TakeJob(ctx).JobRequest(*request).Prefer("wait=30").Execute()
	if err != nil {
		panic(err)
	}
	page, _, err := client.JobsAPI.ListJobs(ctx).Tag("a client").Execute()
	if err != nil {
		panic(err)
	}
	_, refused, _ := client.JobsAPI.TakeJob(ctx).JobRequest(*remora.NewJobRequest("nobody", input)).Execute()
	fmt.Println(taken.Status, len(page.Data), len(page.Data[0].Results), refused.StatusCode)
}
