// ComfyUI's own API with @saintno/comfyui-sdk: node saintno.mjs PORT < prompt. Prints what came.
import fs from "node:fs";
import { CallWrapper, ComfyApi, PromptBuilder } from "@saintno/comfyui-sdk";

// In Node 18 it is there only for those who ask by a flag.
globalThis.CustomEvent ??= class CustomEvent extends Event {
  constructor(type, options) {
    super(type, options);
    this.detail = options?.detail ?? null;
  }
};

const api = await new ComfyApi(`http://127.0.0.1:${process.argv[2]}`).init().waitForReady();
const workflow = new PromptBuilder(JSON.parse(fs.readFileSync(0)), [], ["pictures"]).setOutputNode("pictures", "2");
const data = await new Promise((resolve, reject) => {
  new CallWrapper(api, workflow)
    .onFinished(resolve)
    .onFailed(reject)
    .run();
});
const [image] = data.pictures.images;
const content = Buffer.from(await (await api.getImage(image)).arrayBuffer());
console.log(JSON.stringify({ image, content: content.toString("base64") }));
process.exit(0); // it keeps its socket
