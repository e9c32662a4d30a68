// A page in chromium: node browse.mjs URL < script. The script is the body of an async function that runs in the
// page; prints what it returns.
import fs from "node:fs";
import { chromium } from "playwright-core";

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium-headless-shell",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
try {
  const page = await browser.newPage();
  await page.goto(process.argv[2]);
  console.log(JSON.stringify(await page.evaluate(`(async () => {${fs.readFileSync(0, "utf8")}})()`)));
} finally {
  await browser.close();
}
