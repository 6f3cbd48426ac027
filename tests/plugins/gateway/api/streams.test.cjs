// Partial images through OpenAI's JavaScript SDK: `GATEWAY=http://... KEY=... node --test streams.test.cjs`.
"use strict";

const assert = require("node:assert/strict");
const { test } = require("node:test");

const OpenAI = require("openai");

const client = new OpenAI({ apiKey: process.env.KEY, baseURL: `${process.env.GATEWAY}/v1` });

test("partial images, then the completed one", async () => {
  const options = { model: "paint", prompt: "p", stream: true, partial_images: 2 };
  const events = [];
  for await (const event of await client.images.generate(options)) events.push(event);
  assert.deepEqual(events.map((event) => [event.type, event.partial_image_index]), [
    ["image_generation.partial_image", 0],
    ["image_generation.partial_image", 1],
    ["image_generation.completed", undefined],
  ]);
  for (const event of events) assert.equal(Buffer.from(event.b64_json, "base64").toString("latin1", 1, 4), "PNG");
});
