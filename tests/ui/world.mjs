// A browser, an agent with the stand-in ComfyUI behind it, and a wire between them that can be cut.

import {spawn} from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import {chromium} from 'playwright-core';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const AGENT = path.resolve(ROOT, process.env.AGENT || 'build/asan/src/comfy-agent');
const PATIENCE_MS = 90000; // only ever waited for when something is wrong

export const PIXEL = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC', 'base64');
export const PICTURES = path.join(ROOT, 'build/ui');
export const SOURCES = path.join(ROOT, 'src/ui');
export const DOCS = path.join(ROOT, 'docs');
export const documentFile = name => path.join(ROOT, 'tests/ui/documents', name);

export async function until(what, condition) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const value = await condition();
    if (value)
      return value;
    if (Date.now() > end)
      throw new Error(`waited in vain for: ${what}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

function freePort() {
  return new Promise(resolve => {
    const probe = net.createServer().listen(0, '127.0.0.1', () => {
      const {port} = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

// Passes bytes on; cut() breaks what is open, close() also refuses what is new until open(). silence()
// lets nothing more pass through what is open, and tells nobody.
class Wire {
  constructor(to) {
    this.to = to;
    this.sockets = new Set();
    this.refusing = false;
  }

  async listen() {
    this.server = net.createServer(client => {
      if (this.refusing) {
        client.destroy();
        return;
      }
      const agent = net.connect(this.to, '127.0.0.1');
      client.once('data', part => {
        client.asked = agent.asked = part.subarray(0, 200).toString('latin1');
      });
      for (const [one, other] of [[client, agent], [agent, client]]) {
        this.sockets.add(one);
        one.on('error', () => other.destroy());
        one.on('close', () => {
          this.sockets.delete(one);
          other.destroy();
        });
        one.pipe(other);
      }
    });
    await new Promise(resolve => this.server.listen(0, '127.0.0.1', resolve));
    return this.server.address().port;
  }

  cut() {
    for (const socket of this.sockets)
      socket.destroy();
  }

  // start: of the first request, "GET /api/run/ws".
  silence(start) {
    for (const socket of this.sockets)
      if (socket.asked && socket.asked.startsWith(start))
        socket.unpipe().pause();
  }

  close() {
    this.refusing = true;
    this.cut();
  }

  open() {
    this.refusing = false;
  }

  end() {
    this.close();
    this.server.close();
  }
}

export class World {
  // Settings of the agent and of the stand-in. With NOT_READY it only answers when this returns.
  // Somebody else may have taken a port that was free a moment ago: then the agent ends at once, and others are tried.
  static async start(env = {}, again = 3) {
    const world = new World();
    world.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'comfy-agent-ui-'));
    const inside = name => path.join(world.directory, name);
    fs.mkdirSync(inside('store'));
    world.port = await freePort();
    world.comfyPort = await freePort();
    world.log = fs.openSync(inside('log'), 'w');
    const standin = [path.join(ROOT, 'tests/standin/main.py'), '--listen', '127.0.0.1', '--port', String(world.comfyPort),
      '--preview-method', 'auto', '--standin-control', '--output-directory', inside('output'), '--input-directory', inside('input'),
      '--temp-directory', inside('temp')];
    world.agent = spawn(AGENT, ['--', '/usr/bin/python3', ...standin], {
      stdio: ['ignore', world.log, world.log],
      env: {
        ...process.env, FC_SERVER_PORT: String(world.port), LISTEN_HOST: '127.0.0.1', COMFYUI_PORT: String(world.comfyPort),
        STORE_URL: `file:${inside('store')}`, WORKFLOWS_DIR: path.join(ROOT, 'tests/examples/workflows'), STANDIN_STEP_MS: '40',
        ASAN_OPTIONS: 'detect_leaks=1:exitcode=99:abort_on_error=0', ...env,
      },
    });
    world.exited = new Promise(resolve => world.agent.on('exit', (code, signal) => resolve(code ?? signal)));
    world.wire = new Wire(world.port);
    world.address = `http://127.0.0.1:${await world.wire.listen()}`;
    const first = env.NOT_READY ? '/healthz' : '/readyz';
    let isGone = false;
    world.exited.then(() => {
      isGone = true;
    });
    try {
      await until('the agent to answer', async () => isGone || (await world.ask(first)).status === 200);
      if (isGone && again > 0) {
        world.wire.end();
        return World.start(env, again - 1);
      }
      await world.launch();
    } catch (error) {
      await world.close().catch(other => { // or node would wait for the agent
        error.message += `\n${other.message}`;
      });
      throw error;
    }
    return world;
  }

  async launch() {
    this.browser = await chromium.launch({
      executablePath: process.env.CHROMIUM || '/usr/bin/chromium-headless-shell',
      timeout: PATIENCE_MS,
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
        '--disable-component-update', '--disable-sync'],
    });
  }

  // Past the wire.
  async ask(at, options) {
    try {
      const answer = await fetch(`http://127.0.0.1:${this.port}${at}`, options);
      const text = await answer.text();
      return {status: answer.status, text, json: () => JSON.parse(text)};
    } catch {
      return {status: 0};
    }
  }

  async standin(at, body) {
    const answer = await fetch(`http://127.0.0.1:${this.comfyPort}${at}`, body && {method: 'POST', body: JSON.stringify(body)});
    return at.startsWith('/standin/body') ? answer.text() : answer.json();
  }

  async putPicture(name) {
    const form = new FormData();
    form.append('image', new Blob([PIXEL], {type: 'image/png'}), name);
    const answer = await this.ask('/upload/image', {method: 'POST', body: form});
    if (answer.status !== 200)
      throw new Error(answer.text);
  }

  // The run that comes there stands still until release(); `at` is as the stand-in's README has it.
  hold(name, at) {
    return this.standin('/standin/control', [{...at, do: 'hold', name}]);
  }

  release(name) {
    return this.standin('/standin/control', {release: name});
  }

  // What ComfyUI was sent last.
  async lastPrompt() {
    const {prompts} = await this.standin('/standin/state');
    return this.standin(`/standin/body/${prompts.length - 1}`);
  }

  // A fresh browser profile with the page open in it. Whatever the page logs as an error fails the test.
  async page(options = {}, at = '/ui') {
    const context = await this.browser.newContext({viewport: {width: 1280, height: 800}, locale: 'en-US', ...options});
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    page.problems = [];
    page.on('pageerror', error => page.problems.push(error.stack));
    page.on('console', message => {
      if (message.type() === 'error' && !/Failed to load resource|WebSocket connection/.test(message.text()))
        page.problems.push(message.text());
    });
    await page.goto(this.address + at);
    await page.locator('[data-field]').first().waitFor();
    return page;
  }

  async close() {
    await this.browser?.close();
    this.wire.end();
    this.agent.kill('SIGTERM');
    const code = await this.exited;
    const log = fs.readFileSync(path.join(this.directory, 'log'), 'utf8');
    fs.closeSync(this.log);
    fs.rmSync(this.directory, {recursive: true});
    if (code !== 0 || /Sanitizer|assertion failed/.test(log))
      throw new Error(`the agent ended with ${code}:\n${log.slice(-6000)}`);
  }
}

// --- what a person does ------------------------------------------------------------------------

async function isThere(page) {
  await page.locator('.chooser').waitFor({state: 'detached'});
  await page.locator('#panel:not([aria-busy])').waitFor();
}

export async function openFile(page, file, title) {
  await page.locator('#workflow-button').click();
  await page.locator('.chooser input[type=file]').setInputFiles(file);
  if (title)
    await page.getByRole('button', {name: title, exact: true}).click();
}

export async function openWorkflow(page, file, title) {
  await openFile(page, file, title);
  await isThere(page);
}

// A workflow of the test's own.
export async function openPrompt(page, prompt, title = 'test') {
  await page.locator('#workflow-button').click();
  await page.locator('.chooser input[type=file]').setInputFiles({
    name: `${title}.json`, mimeType: 'application/json', buffer: Buffer.from(typeof prompt === 'string' ? prompt : JSON.stringify(prompt)),
  });
  await isThere(page);
}

export const run = page => page.locator('#run').click();
// The newest one (or the n-th after it), once it is in that state.
export const card = (page, state, n = 0) => page.locator(`.card-${state}:nth-child(${n + 1})`);

// Until the newest `count` of them have come to that end.
export async function ended(page, count = 1, state = 'succeeded') {
  await until(`${count} ${state}`, async () => await page.locator(`.card-${state}:nth-child(-n+${count})`).count() === count);
}

// --- what a person sees -----------------------------------------------------------------------

export const fieldLabels = page => page.locator('#panel .label:visible').allTextContents();

// Elements whose box leaves the window or covers another's that should stand beside it.
export function misplaced(page, selector) {
  // A phone's browser makes its window as wide as the page, so innerWidth would be of no use.
  return page.evaluate(([css, width]) => {
    const found = [];
    const shown = [...document.querySelectorAll(css)].filter(element => element.checkVisibility());
    const boxes = shown.map(element => ({element, box: element.getBoundingClientRect()}));
    const name = element => `${element.tagName}.${element.className} ${(element.ariaLabel || element.textContent).trim().slice(0, 40)}`;
    for (const {element, box} of boxes) {
      if (box.width > 0 && (box.left < -0.5 || box.right > width + 0.5))
        found.push(`outside: ${name(element)}`);
      if (element.scrollWidth > element.clientWidth + 1 && element.tagName === 'BUTTON' && getComputedStyle(element).overflow !== 'hidden')
        found.push(`cut: ${name(element)}`);
    }
    for (const one of boxes)
      for (const other of boxes) {
        if (one === other || one.element.contains(other.element) || other.element.contains(one.element))
          continue;
        const wide = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
        const high = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
        if (wide > 1 && high > 1)
          found.push(`over each other: ${name(one.element)} and ${name(other.element)}`);
      }
    if (document.documentElement.scrollWidth > width)
      found.push(`the page is ${document.documentElement.scrollWidth} wide`);
    return found;
  }, [selector, page.viewportSize().width]);
}
