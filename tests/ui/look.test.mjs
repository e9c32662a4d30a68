// How it looks: languages, colours, phones, who cannot see it; and how much of it is sent.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import {createRequire} from 'node:module';
import path from 'node:path';
import {after, before, test} from 'node:test';
import {DOCS, SOURCES, PICTURES, World, card, documentFile, ended, fieldLabels, misplaced, openPrompt, openWorkflow, run, until} from './world.mjs';

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const FIRST_VIEW_MAX = 100 * 1000;
const WHOLE_MAX = 150 * 1000;

let world;
before(async () => {
  world = await World.start();
  fs.mkdirSync(PICTURES, {recursive: true});
});
after(() => world.close());

const keep = (page, name) => page.screenshot({path: path.join(PICTURES, `${name}.png`)});

// The page has a policy against scripts that are not its own; axe comes in past it.
async function seriousFaults(page) {
  const session = await page.context().newCDPSession(page);
  await session.send('Runtime.evaluate', {expression: fs.readFileSync(AXE, 'utf8')});
  const {violations} = await page.evaluate(() => globalThis.axe.run(document, {resultTypes: ['violations']}));
  return violations.filter(one => ['serious', 'critical'].includes(one.impact))
    .map(one => `${one.id}: ${one.nodes.map(node => `${node.html.slice(0, 200)} ${node.failureSummary}`).join(' | ')}`);
}

test('the first view is small, and asked for again costs nothing', async () => {
  const context = await world.browser.newContext();
  const page = await context.newPage();
  const session = await context.newCDPSession(page);
  const names = new Map();
  const bytes = new Map();
  await session.send('Network.enable');
  session.on('Network.responseReceived', ({requestId, response}) => names.set(requestId, response));
  session.on('Network.loadingFinished', ({requestId, encodedDataLength}) => bytes.set(requestId, encodedDataLength));
  await page.goto(`${world.address}/ui`);
  await page.locator('[data-field]').first().waitFor();
  await page.waitForLoadState('networkidle');
  const total = [...bytes.values()].reduce((sum, one) => sum + one, 0);
  assert.ok(total > 10000 && total < FIRST_VIEW_MAX, `${total} bytes`);
  const files = [...names.values()].filter(response => /\/ui($|\/)/.test(new URL(response.url).pathname));
  assert.ok(files.length > 15);
  for (const response of files) {
    assert.equal(response.headers['content-encoding'], 'gzip', response.url);
    assert.match(response.headers['content-security-policy'], /default-src 'none'; script-src 'self'; style-src 'self'/);
  }
  let whole = 0;
  for (const response of files) {
    const {pathname} = new URL(response.url);
    const plain = await fetch(`http://127.0.0.1:${world.port}${pathname}`, {headers: {'accept-encoding': 'identity'}});
    assert.equal(plain.headers.get('content-encoding'), null);
    whole += (await plain.arrayBuffer()).byteLength;
    const again = await fetch(`http://127.0.0.1:${world.port}${pathname}`, {headers: {'accept-encoding': 'identity', 'if-none-match': plain.headers.get('etag')}});
    assert.equal(again.status, 304);
  }
  assert.ok(whole < WHOLE_MAX, `${whole} bytes`);
  console.log(`first view ${total} bytes, all of it ${whole}`);
  await context.close();
});

// While there are no other runs to be seen.
test('a picture for the README', async () => {
  const page = await world.page({viewport: {width: 1280, height: 720}});
  await page.getByLabel('Seed', {exact: true}).fill('7');
  await page.getByRole('button', {name: 'More', exact: true}).click();
  await page.getByRole('button', {name: 'More', exact: true}).click();
  await world.hold('readme', {at: 'progress', class: 'KSampler', value: 12, skip: 2});
  await run(page);
  await ended(page, 2);
  await card(page, 'live', 2).getByText(/Painting · step 1\d of 20/).waitFor();
  await until('all pictures', () => page.locator('.card-succeeded img').evaluateAll(images => images.slice(0, 2).every(image => image.complete)));
  await keep(page, 'readme');
  if (process.env.DOCS) {
    fs.mkdirSync(DOCS, {recursive: true});
    fs.copyFileSync(path.join(PICTURES, 'readme.png'), path.join(DOCS, 'ui.png'));
  }
  await world.release('readme');
  await page.context().close();
});

test('everything is said in both languages, with the same things in it', async () => {
  const page = await world.page();
  const {ENGLISH, CHINESE} = await page.evaluate(async () => {
    const words = await import('/ui/words.js');
    return {ENGLISH: words.ENGLISH, CHINESE: words.CHINESE};
  });
  const sources = fs.readdirSync(SOURCES).filter(name => /\.(js|html)$/.test(name)).map(name => fs.readFileSync(path.join(SOURCES, name), 'utf8')).join('\n');
  const names = text => [...text.matchAll(/\{\w+\}/g)].map(String).sort();
  assert.deepEqual(Object.keys(CHINESE).sort(), Object.keys(ENGLISH).sort());
  for (const [key, text] of Object.entries(ENGLISH)) {
    assert.deepEqual(names(CHINESE[key]), names(text), key);
    if (/\w/.test(text.replace(/\{\w+\}/g, '')))
      assert.match(CHINESE[key], /[\u4e00-\u9fff]/, key);
  }
  const asked = [...sources.matchAll(/\bt\('(\w+)'|data-words="(\w+)"/g)].map(([, one, other]) => one || other);
  assert.ok(asked.length > 60);
  assert.deepEqual(asked.filter(key => !(key in ENGLISH)), []);
  await page.context().close();
});

test('English and Chinese', async () => {
  const page = await world.page({locale: 'zh-CN'});
  assert.equal(await page.locator('html').getAttribute('lang'), 'zh-CN');
  for (const words of ['参数', '结果', '运行', '就绪'])
    await page.getByText(words, {exact: true}).first().waitFor();
  await openPrompt(page, {1: {class_type: 'TestSteps', inputs: {n: 20, ms: 5, seed: -1}}, 2: {class_type: 'TestText', inputs: {text: 'x'}}});
  assert.deepEqual((await fieldLabels(page)).slice(0, 2), ['文本', '种子']);
  await page.getByLabel('文本').fill('写的字');
  await run(page);
  await ended(page);
  await keep(page, 'chinese');
  await page.getByRole('button', {name: 'English'}).click();
  await page.getByText('Results', {exact: true}).waitFor();
  assert.equal(await page.locator('html').getAttribute('lang'), 'en');
  assert.deepEqual((await fieldLabels(page)).slice(0, 2), ['Text', 'Seed']);
  assert.equal(await page.getByLabel('Text', {exact: true}).inputValue(), '写的字');
  await page.reload();
  await page.getByText('Settings', {exact: true}).waitFor();
  assert.equal(await page.getByText('参数', {exact: true}).count(), 0);
  await page.context().close();
});

for (const [locale, width] of [['en-US', 390], ['zh-CN', 360]])
  test(`on a phone, ${locale}: nothing is cut, nothing covers another`, async () => {
    const page = await world.page({viewport: {width, height: 844}, locale, hasTouch: true, isMobile: true, deviceScaleFactor: 2});
    const parts = '.top h1, .server-state, .tools > *, .field, .stepper, #run, .card, .shot, .foot .title, .actions > *, .live > *, .mark';
    const withoutBar = parts.replace('.stepper, #run, ', ''); // which stays in sight above the fields
    assert.deepEqual(await misplaced(page, '.top *, .stepper, #run'), []);
    await openWorkflow(page, documentFile('older.json'), 'Fünf Arten');
    assert.deepEqual(await misplaced(page, withoutBar.replace('.top h1, .server-state, .tools > *, ', '')), []);
    assert.deepEqual(await misplaced(page, '.field .label, .field input, .field textarea, .field select, .field .hint, .field button:not(.picture-remove)'), []);
    await keep(page, `phone-${locale}`);
    await page.locator('[data-field="8.image"] .picture-name').fill('nobody.png');
    await run(page);
    await card(page, 'failed').waitFor();
    await page.locator('[data-field="8.image"] .picture-name').fill('https://127.0.0.1/x.png');
    await run(page);
    await page.getByText(/leads to a loopback address/).first().waitFor();
    await openPrompt(page, {1: {class_type: 'TestSteps', inputs: {n: 5000, ms: 20, seed: -1}, _meta: {title: 'A node with a title that is much too long for a phone'}}});
    await run(page);
    await page.getByText(/A node with a title/).first().waitFor();
    assert.deepEqual(await misplaced(page, '.card, .shot-failed > *, .live > *, .foot .title, .foot .time, .actions > *'), []);
    await keep(page, `phone-running-${locale}`);
    await card(page, 'live').locator('button').click();
    await card(page, 'cancelled').waitFor();
    for (const open of ['#workflow-button', '.tools button:nth-child(1)']) {
      await page.locator(open).click();
      await page.locator('dialog[open]').waitFor();
      assert.deepEqual(await misplaced(page, 'dialog[open] button, dialog[open] h2, dialog[open] .hint'), []);
      await page.keyboard.press('Escape');
    }
    assert.deepEqual(page.problems, []);
    await page.context().close();
  });

for (const colorScheme of ['light', 'dark'])
  test(`axe finds nothing serious, ${colorScheme}`, async () => {
    const page = await world.page({colorScheme});
    assert.equal(await page.locator('html').getAttribute('data-theme'), colorScheme);
    await openWorkflow(page, documentFile('older.json'), 'Fünf Arten');
    await page.locator('.picture-name').fill('nobody.png');
    await run(page);
    await card(page, 'failed').waitFor();
    await page.locator('#workflow-button').click();
    assert.deepEqual(await seriousFaults(page), []);
    await page.getByRole('button', {name: 'Picture from text'}).click();
    await page.getByLabel('What should be seen').waitFor();
    await world.hold('axe', {at: 'progress', class: 'KSampler', value: 10});
    await run(page);
    await page.getByText(/Painting · step/).waitFor();
    assert.deepEqual(await seriousFaults(page), []);
    await world.release('axe');
    await ended(page);
    await page.getByRole('button', {name: 'For developers'}).click();
    await page.locator('dialog[open]').waitFor();
    assert.deepEqual(await seriousFaults(page), []);
    await page.keyboard.press('Escape');
    await page.locator('.card-succeeded button.tile').first().click();
    assert.deepEqual(await seriousFaults(page), []);
    await page.keyboard.press('Escape');
    await page.getByRole('button', {name: colorScheme === 'dark' ? 'Light colours' : 'Dark colours'}).click();
    assert.equal(await page.locator('html').getAttribute('data-theme'), colorScheme === 'dark' ? 'light' : 'dark');
    await page.context().close();
  });

test('everything by the keyboard', async () => {
  const page = await world.page();
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to results');
  await page.getByLabel('What should be seen').focus();
  const interrupts = async () => (await world.standin('/standin/state')).interrupts.length;
  const fired = async () => (await world.standin('/standin/state')).fired.length;
  const [before, held] = [await interrupts(), await fired()];
  await world.hold('keys', {at: 'progress', class: 'KSampler', value: 10});
  await page.keyboard.press('Control+Enter');
  await until('it to run', async () => await fired() > held);
  await card(page, 'live').getByRole('button', {name: 'Cancel'}).press('Enter');
  await until('ComfyUI to be told', async () => await interrupts() > before);
  await world.release('keys');
  await card(page, 'cancelled').waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.classList.contains('card-cancelled')), true);
  assert.equal(await page.locator('#news').textContent(), 'Picture from text: Cancelled.');
  await page.context().close();
});

test('the keyboard keeps its place where buttons change; chosen colours stay', async () => {
  const page = await world.page({colorScheme: 'light'});
  const focused = () => page.evaluate(() => document.activeElement.ariaLabel);
  const more = page.getByRole('button', {name: 'More', exact: true});
  await more.press('Enter');
  for (const name of ['Fewer', 'Fewer']) {
    await page.getByRole('button', {name}).press('Enter');
    await page.evaluate(() => new Promise(requestAnimationFrame));
    assert.equal(await focused(), name);
  }
  assert.equal(await page.locator('#run').textContent(), 'Run');
  assert.equal(await page.getByRole('button', {name: 'Fewer'}).getAttribute('aria-disabled'), 'true');
  await page.getByRole('button', {name: 'Dark colours'}).press('Enter');
  assert.equal(await focused(), 'Light colours');
  await page.getByRole('button', {name: 'Light colours'}).press('Enter');
  await page.emulateMedia({colorScheme: 'dark'});
  await page.evaluate(() => new Promise(requestAnimationFrame));
  assert.equal(await page.locator('html').getAttribute('data-theme'), 'light');

  // Held down, the keys run it once.
  const before = (await world.standin('/standin/state')).prompts.length;
  await page.getByLabel('Seed', {exact: true}).focus();
  await page.keyboard.down('Control');
  for (let n = 0; n < 3; n++)
    await page.keyboard.down('Enter');
  await page.keyboard.up('Enter');
  await page.keyboard.up('Control');
  await ended(page);
  assert.equal((await world.standin('/standin/state')).prompts.length, before + 1);
  await page.context().close();
});

test('what the server says of itself', async () => {
  const page = await world.page();
  const told = async (answer, words) => {
    await page.route('**/readyz', route => route.fulfill(answer));
    await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
    await page.locator('#state').getByText(words, {exact: true}).waitFor();
    await page.unroute('**/readyz');
  };
  const comfyui = state => ({status: 503, json: {status: 'not_ready', comfyui: {state}}});
  await told({status: 503, json: {status: 'not_ready', door: {calls: 0}}}, 'Not ready');
  await told(comfyui('backoff'), 'ComfyUI is starting');
  await told(comfyui('gave_up'), 'ComfyUI does not start.');
  await told({status: 502, body: '<html>a proxy'}, 'No connection');
  await told({status: 200, json: {status: 'ready', door: {calls: 0}}}, 'Ready');
  await page.context().close();
});
