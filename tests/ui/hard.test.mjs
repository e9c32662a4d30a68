// The page where things are missing: a key, a ComfyUI that is up, its paths, WebSockets, events.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {PIXEL, World, card, ended, openPrompt, run, until} from './world.mjs';

const picture = {
  1: {class_type: 'LoadImage', inputs: {image: ''}},
  2: {class_type: 'SaveImage', inputs: {images: ['1', 0], filename_prefix: 'back'}},
};

async function inWorld(env, work) {
  const world = await World.start(env);
  try {
    await work(world);
  } finally {
    await world.close();
  }
}

test('a key is asked for once, and told to developers', () => inWorld({API_KEY: 'one'}, async world => {
  const context = await world.browser.newContext({locale: 'en-US'});
  const page = await context.newPage();
  await page.goto(`${world.address}/ui`);
  assert.equal(await page.getByRole('alert').count(), 0);
  await page.getByLabel('Key').fill('two');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').getByText('It does not know the one that was given.').waitFor();
  await page.getByLabel('Key').fill('one');
  await page.keyboard.press('Enter');
  await page.getByLabel('What should be seen').waitFor();
  assert.equal(page.url(), `${world.address}/ui`);
  await run(page);
  await ended(page);
  await page.getByRole('button', {name: 'For developers'}).click();
  assert.match(await page.locator('.code').textContent(), /-H "x-api-key: \$API_KEY"/);
}));

test('a link on another site may bring the key', () => inWorld({API_KEY: 'one'}, async world => {
  const context = await world.browser.newContext({locale: 'en-US'});
  const page = await context.newPage();
  await page.route('http://elsewhere.example/', route => route.fulfill({
    contentType: 'text/html',
    body: `<a href="${world.address}/ui?key=one">page</a> <a href="${world.address}/view?type=output&filename=none.png&key=one">picture</a>`,
  }));
  await page.goto('http://elsewhere.example/');
  await page.getByText('page').click();
  await page.getByLabel('What should be seen').waitFor();
  assert.equal(page.url(), `${world.address}/ui`);
  assert.equal(await page.evaluate(() => document.referrer), '');
  await page.goto('http://elsewhere.example/');
  const asked = page.waitForRequest(`${world.address}/view?type=output&filename=none.png`);
  await page.getByText('picture').click();
  assert.equal((await (await asked).allHeaders()).referer, undefined); // of what ComfyUI gets
}));

test('ComfyUI starts meanwhile: choices come when it is there', () => inWorld({STANDIN_BOOT_MS: '4000', NOT_READY: '1'}, async world => {
  const page = await world.page();
  await page.getByText('ComfyUI is starting').waitFor();
  assert.equal(await page.getByLabel('Sampler').locator('option').count(), 1);
  await page.getByLabel('What should be seen').fill('typed while it starts');
  await run(page);
  await page.getByText('Ready', {exact: true}).waitFor();
  await until('the choices', async () => await page.getByLabel('Sampler').locator('option').count() > 3);
  assert.equal(await page.getByLabel('What should be seen').inputValue(), 'typed while it starts');
  await ended(page);
}));

test('ComfyUI’s own paths are hidden: pictures go with the prompt', () => inWorld({PROXY_ALLOW: 'none'}, async world => {
  const page = await world.page();
  await openPrompt(page, picture);
  await page.locator('[data-field="1.image"] input[type=file]').first().setInputFiles({name: 'mine.png', mimeType: 'image/png', buffer: PIXEL});
  await page.locator('.picture-view img').waitFor();
  await run(page);
  await ended(page);
  assert.deepEqual((await world.standin('/standin/state')).uploads.map(upload => upload.bytes), [PIXEL.length]);
  await page.reload();
  await card(page, 'succeeded').locator('img').waitFor();
}));

test('neither WebSockets nor events: it asks', () => inWorld({}, async world => {
  const context = await world.browser.newContext({locale: 'en-US'});
  await context.addInitScript(() => {
    delete globalThis.EventSource;
    globalThis.WebSocket = class {
      constructor() {
        setTimeout(() => this.onclose());
      }
    };
  });
  const page = await context.newPage();
  await page.goto(`${world.address}/ui`);
  await page.getByLabel('What should be seen').waitFor();
  await world.hold('here', {at: 'progress', class: 'KSampler', value: 9});
  await run(page);
  await page.getByText(/Painting · step [89] of 20/).waitFor();
  await world.release('here');
  await ended(page);
  await openPrompt(page, {1: {class_type: 'TestRaise', inputs: {message: 'no', kind: 'RuntimeError'}}});
  await run(page);
  await card(page, 'failed').waitFor();
  await openPrompt(page, {1: {class_type: 'Nowhere', inputs: {text: 'x'}}});
  await run(page);
  await page.getByText('ComfyUI does not accept these settings.').waitFor();
}));
