// OpenAI's JavaScript SDK against a gateway: `GATEWAY=http://... KEY=... EMULATOR=http://... node --test sdk.test.cjs`.
"use strict";

const assert = require("node:assert/strict");
const { createReadStream, readFileSync } = require("node:fs");
const { test } = require("node:test");

const OpenAI = require("openai");
const { toFile } = OpenAI;

const { GATEWAY, KEY, EMULATOR, PICTURE, MASK } = process.env;
const client = new OpenAI({ apiKey: KEY, baseURL: `${GATEWAY}/v1` });
const picture = () => toFile(readFileSync(PICTURE), "cat.png", { type: "image/png" });

function isPicture(text) {
  const data = Buffer.from(text, "base64");
  assert.equal(data.toString("base64"), text);
  assert.deepEqual([...data.subarray(0, 4)], [0x89, 0x50, 0x4e, 0x47]);
  assert.equal(data.subarray(-8, -4).toString("latin1"), "IEND");
}

async function sent() {
  return (await (await fetch(`${EMULATOR}/_emulator/requests`)).json()).count;
}

// The error of a call, and how often the provider was asked.
async function failure(options) {
  const before = await sent();
  const error = await client.images.generate({ model: "sd3", prompt: "p", ...options }).then(assert.fail, (it) => it);
  assert.ok(error instanceof OpenAI.APIError, error);
  return [error, (await sent()) - before];
}

test("generate", async () => {
  const { data: made, response } = await client.images
    .generate({ model: "sd3", prompt: "a lighthouse", size: "1792x1024", n: 2, seed: 5, negative_prompt: "fog" })
    .withResponse();
  assert.deepEqual(made.data.map((each) => each.seed), [5, 6]);
  made.data.forEach((each) => isPicture(each.b64_json));
  assert.equal(made.output_format, "png");
  assert.equal(made.usage.total_tokens, 0);
  assert.equal(response.headers.get("x-impasto-cost-usd"), "0.13");
  assert.match(made._request_id, /^req_/);
});

test("AzureOpenAI: the deployment is in the path alone", async () => {
  const options = { apiKey: KEY, endpoint: GATEWAY, apiVersion: "2025-04-01-preview", maxRetries: 0 };
  const generated = await new OpenAI.AzureOpenAI({ ...options, deployment: "sd3" }).images.generate({ prompt: "p" });
  isPicture(generated.data[0].b64_json);
  const azure = new OpenAI.AzureOpenAI({ ...options, deployment: "upscale" });
  isPicture((await azure.images.edit({ image: await picture(), prompt: "sharper" })).data[0].b64_json);
});

test("generate, as a URL", async () => {
  const made = await client.images.generate({ model: "sd3", prompt: "p", response_format: "url" });
  const found = await fetch(made.data[0].url);
  assert.equal(found.headers.get("content-type"), "image/png");
  isPicture(Buffer.from(await found.arrayBuffer()).toString("base64"));
});

test("generate, streamed", async () => {
  const stream = await client.images.generate({ model: "sd3", prompt: "p", stream: true, partial_images: 2 });
  const events = [];
  for await (const event of stream) events.push(event);
  assert.deepEqual(events.map((event) => event.type), ["image_generation.completed"]);
  isPicture(events[0].b64_json);
});

test("edit, every form of a picture", async () => {
  for (const image of [await picture(), [await picture()], createReadStream(PICTURE)]) {
    const made = await client.images.edit({ model: "upscale", image, prompt: "sharper" });
    isPicture(made.data[0].b64_json);
  }
  const raw = await toFile(readFileSync(PICTURE)); // no name and no type
  isPicture((await client.images.edit({ model: "upscale", image: raw, prompt: "p" })).data[0].b64_json);
});

test("edit with a mask, and with two pictures", async () => {
  const mask = await toFile(readFileSync(MASK), "mask.png");
  const made = await client.images.edit({ model: "inpaint", image: await picture(), mask, prompt: "a garden", n: 2 });
  assert.equal(made.data.length, 2);
  const both = [await picture(), await picture()];
  isPicture((await client.images.edit({ model: "style-transfer", image: both, prompt: "more" })).data[0].b64_json);
});

test("edit, streamed", async () => {
  const stream = await client.images.edit({ model: "upscale", image: await picture(), prompt: "p", stream: true });
  for await (const event of stream) assert.equal(event.type, "image_edit.completed");
});

test("variation", async () => {
  const made = await client.images.createVariation({ model: "sd3", image: await picture(), n: 1 });
  isPicture(made.data[0].b64_json);
});

test("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("inpaint"));
  const model = await client.models.retrieve("sd3");
  assert.ok(model.parameters.some((field) => field.name === "seed"));
  await assert.rejects(client.models.retrieve("nothing"), OpenAI.NotFoundError);
});

test("errors", async () => {
  const wrong = new OpenAI({ apiKey: "sk-wrong", baseURL: `${GATEWAY}/v1` });
  await assert.rejects(wrong.images.generate({ model: "sd3", prompt: "p" }), (error) => {
    assert.ok(error instanceof OpenAI.AuthenticationError);
    assert.equal(error.code, "invalid_api_key");
    return true;
  });
  await assert.rejects(client.images.generate({ model: "sd3", prompt: "p", n: 11 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.deepEqual([error.param, error.type], ["n", "invalid_request_error"]);
    assert.match(error.requestID, /^req_/);
    return true;
  });
  await assert.rejects(client.images.generate({ model: "nothing", prompt: "p" }), OpenAI.NotFoundError);
});

test("moderation is told and not tried again", async () => {
  const [error, asked] = await failure({ prompt: "[content_moderation]" });
  assert.ok(error instanceof OpenAI.BadRequestError);
  assert.deepEqual([error.code, error.type], ["moderation_blocked", "image_generation_user_error"]);
  assert.equal(asked, 1);
});

test("what may have been charged is told and not tried again", async () => {
  await fetch(`${EMULATOR}/_emulator/faults`, { method: "POST", body: '[{"kind": "truncate", "times": 1}]' });
  const [error, asked] = await failure({});
  assert.ok(error instanceof OpenAI.InternalServerError);
  assert.equal(error.code, "charge_unknown");
  assert.equal(asked, 1);
});

test("a stream that fails at once is an error like any", async () => {
  const [error, asked] = await failure({ prompt: "", stream: true });
  assert.ok(error instanceof OpenAI.BadRequestError);
  assert.deepEqual([error.param, asked], ["prompt", 0]);
});
