// The Vercel AI SDK and LangChain.js against a gateway: `GATEWAY=http://... KEY=... IMAGE=... MASK=... node --test`.
"use strict";

const assert = require("node:assert/strict");
const { readFileSync } = require("node:fs");
const { test } = require("node:test");

const { APICallError, generateImage } = require("ai");
const { createOpenAI } = require("@ai-sdk/openai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
const { DallEAPIWrapper } = require("@langchain/openai");

const { GATEWAY, KEY, IMAGE, MASK } = process.env;
const baseURL = `${GATEWAY}/v1`;
const compatible = createOpenAICompatible({ name: "impasto", apiKey: KEY, baseURL });
const openai = createOpenAI({ apiKey: KEY, baseURL });
const image = readFileSync(IMAGE);
const mask = readFileSync(MASK);

function isPNG(data) {
  assert.deepEqual([...data.subarray(0, 4)], [0x89, 0x50, 0x4e, 0x47]);
  assert.equal(Buffer.from(data.subarray(-8, -4)).toString("latin1"), "IEND");
}

for (const [name, model] of [["OpenAI-compatible", (id) => compatible.imageModel(id)], ["OpenAI", (id) => openai.image(id)]]) {
  test(`AI SDK, ${name} provider: generate`, async () => {
    const result = await generateImage({ model: model("sd3"), prompt: "a boat", size: "1024x1024" });
    assert.equal(result.image.mediaType, "image/png");
    isPNG(result.image.uint8Array);
    assert.deepEqual(result.warnings, []);
  });

  test(`AI SDK, ${name} provider: n images are n images`, async () => {
    const result = await generateImage({ model: model("sd3"), prompt: "a boat", n: 2 });
    assert.equal(result.images.length, 2);
  });

  test(`AI SDK, ${name} provider: edit`, async () => {
    const result = await generateImage({ model: model("sd3"), prompt: { text: "a hat", images: [image] } });
    isPNG(result.image.uint8Array);
  });

  test(`AI SDK, ${name} provider: edit with a mask`, async () => {
    const result = await generateImage({ model: model("inpaint"), prompt: { text: "a hat", images: [image], mask } });
    isPNG(result.image.uint8Array);
  });

  test(`AI SDK, ${name} provider: edit of two images`, async () => {
    const prompt = { text: "a hat", images: [image, image] };
    isPNG((await generateImage({ model: model("style-transfer"), prompt })).image.uint8Array);
  });

  test(`AI SDK, ${name} provider: a refusal has its message and is not tried again`, async () => {
    const error = await generateImage({ model: model("sd3"), prompt: "" }).then(assert.fail, (each) => each);
    assert.ok(APICallError.isInstance(error), error);
    assert.equal(error.statusCode, 400);
    assert.match(error.message, /^prompt: /);
    assert.equal(error.isRetryable, false);
  });
}

test("AI SDK: the model's own field", async () => {
  const providerOptions = { impasto: { output_format: "webp", negative_prompt: "fog" } };
  const result = await generateImage({ model: compatible.imageModel("sd3"), prompt: "a boat", providerOptions });
  assert.equal(result.image.mediaType, "image/webp");
});

test("LangChain: generate, as a URL", async () => {
  const url = await new DallEAPIWrapper({ apiKey: KEY, baseUrl: baseURL, model: "sd3" }).invoke("a boat");
  const response = await fetch(url);
  assert.equal(response.headers.get("content-type"), "image/png");
  isPNG(new Uint8Array(await response.arrayBuffer()));
});

test("LangChain: generate, as base64", async () => {
  const wrapper = new DallEAPIWrapper({ apiKey: KEY, baseUrl: baseURL, model: "sd3", dallEResponseFormat: "b64_json" });
  isPNG(Buffer.from(await wrapper.invoke("a boat"), "base64"));
});
