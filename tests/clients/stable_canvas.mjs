// ComfyUI's own API with @stable-canvas/comfyui-client: node stable_canvas.mjs PORT < prompt. Prints what came.
import fs from "node:fs";
import { Client } from "@stable-canvas/comfyui-client";
import WebSocket from "ws";

const client = new Client({ api_host: `127.0.0.1:${process.argv[2]}`, WebSocket, fetch });
await client.connect();
const output = await client.enqueue(JSON.parse(fs.readFileSync(0))); // over with the first output node
const [image] = output.images;
const content = Buffer.from(await (await fetch(image.data)).arrayBuffer());
console.log(JSON.stringify({ image: image.data, content: content.toString("base64") }));
client.close();
process.exit(0); // whatever it keeps
