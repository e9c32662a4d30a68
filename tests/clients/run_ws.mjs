// /api/run/ws with `ws`: node run_ws.mjs PORT < first message. Prints what came and how it ended.
import fs from "node:fs";
import WebSocket from "ws";

const socket = new WebSocket(`ws://127.0.0.1:${process.argv[2]}/api/run/ws?previews=1&task-id=from-node`);
const heard = { types: [], previews: 0, last: null, upgrade: null };
socket.on("upgrade", (answer) => (heard.upgrade = answer.headers["task-id"]));
socket.on("open", () => socket.send(fs.readFileSync(0, "utf8")));
socket.on("message", (data, isBinary) => {
  if (isBinary) {
    heard.previews++;
    return;
  }
  heard.last = JSON.parse(data);
  heard.types.push(heard.last.type);
});
socket.on("close", (code) => console.log(JSON.stringify({ ...heard, code })));
