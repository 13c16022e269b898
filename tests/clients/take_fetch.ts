// Takes a job and lists it through the client that openapi-generator made for TypeScript.
import { Configuration, JobsApi, ResponseError } from "./index";

declare const process: { argv: string[] };

async function main(base: string, key: string): Promise<void> {
  const jobs = new JobsApi(new Configuration({ basePath: base, accessToken: key }));
  const input = { model: "sparkpix", prompt: "a cat", aspect_ratio: "16:9" };
  const taken = await jobs.takeJob({
    jobRequest: { provider: "apimodels", operation: "generate", input, tags: ["a client"] },
    prefer: "wait=30",
  });
  const page = await jobs.listJobs({ tag: "a client" });
  const refused = await jobs.takeJob({ jobRequest: { provider: "nobody", input } }).catch((error) => error);
  const status = refused instanceof ResponseError ? refused.response.status : undefined;
  console.log(taken.status, page.data.length, page.data[0]?.results.length, status);
}

void main(process.argv[2]!, process.argv[3]!);
