// OpenAI's own client for Node.js against one server: what it was asked for on stdin, what it got on stdout, both JSON.
import { createReadStream, readFileSync } from "node:fs";
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

const { url, key, wav, pcm } = JSON.parse(readFileSync(0, "utf8"));
const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0 });
const ask = (options) =>
  client.audio.transcriptions.create({ file: createReadStream(wav), model: "whisper-1", ...options });

async function realtime() {
  const connection = new OpenAIRealtimeWS({ model: "gpt-4o-transcribe" }, client);
  const seen = { events: [], completed: [], deltas: "" };
  await new Promise((resolve, reject) => {
    connection.on("error", reject);
    connection.socket.on("close", resolve);
    connection.on("event", (event) => seen.events.push(event.type));
    connection.on("session.created", () =>
      connection.send({
        type: "session.update",
        session: {
          type: "transcription",
          audio: {
            input: {
              format: { type: "audio/pcm", rate: 24000 },
              transcription: { model: "gpt-4o-transcribe", language: "ru" },
              turn_detection: { type: "server_vad", silence_duration_ms: 600 },
            },
          },
        },
      }),
    );
    connection.on("session.updated", () => {
      const audio = readFileSync(pcm);
      for (let start = 0; start < audio.length; start += 9601) {
        connection.send({
          type: "input_audio_buffer.append",
          audio: audio.subarray(start, start + 9601).toString("base64"),
        });
      }
    });
    connection.on("conversation.item.input_audio_transcription.delta", (event) => (seen.deltas += event.delta));
    connection.on("conversation.item.input_audio_transcription.completed", (event) => {
      seen.completed.push(event.transcript);
      if (seen.completed.length === 2) connection.close();
    });
  });
  return seen;
}

async function refused(options) {
  try {
    await ask(options);
    return null;
  } catch (error) {
    return { name: error.constructor.name, status: error.status, message: error.message };
  }
}

const events = [];
for await (const event of await ask({ model: "gpt-4o-transcribe", stream: true })) events.push(event);
const models = [];
for await (const model of client.models.list()) models.push(model.id);

console.log(
  JSON.stringify({
    json: await ask({}),
    srt: await ask({ response_format: "srt" }),
    verbose: await ask({ response_format: "verbose_json", timestamp_granularities: ["word", "segment"] }),
    events,
    models,
    unknown: await refused({ model: "nobody" }),
    realtime: await realtime(),
  }),
);
