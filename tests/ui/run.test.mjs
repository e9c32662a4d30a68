// Running: several at once, cancel, faults at their fields, cut connections, what is left of it all.

import assert from 'node:assert/strict';
import {execFile} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {after, before, test} from 'node:test';
import {promisify} from 'node:util';
import {World, card, documentFile, ended, openPrompt, openWorkflow, run, until} from './world.mjs';

let world;
before(async () => {
  world = await World.start();
});
after(() => world.close());

const steps = (n, ms) => ({
  1: {class_type: 'TestSteps', inputs: {n, ms, seed: -1}, _meta: {title: 'Counting'}},
  2: {class_type: 'TestText', inputs: {text: 'end'}},
});
const percent = async where => Number(await where.getByRole('progressbar').getAttribute('aria-valuenow'));

test('four at once: progress moves, each has its own seed, which can be used again', async () => {
  const page = await world.page();
  await page.getByText('Picture from text').waitFor();
  for (let n = 0; n < 3; n++)
    await page.getByRole('button', {name: 'More', exact: true}).click();
  assert.equal(await page.locator('#run').textContent(), 'Run 4');
  await world.hold('early', {at: 'progress', class: 'KSampler', value: 5});
  await world.hold('late', {at: 'progress', class: 'KSampler', value: 15});
  await run(page);
  assert.equal(await page.locator('.card-live').count(), 4);
  await page.getByText('Waiting · 2 before this one').waitFor();
  const first = card(page, 'live');
  await first.getByText(/Painting · step \d of 20/).waitFor();
  await first.getByRole('img', {name: 'How it looks so far'}).waitFor();
  const [early, overallEarly] = [await percent(first), await percent(page.locator('.overall'))];
  await world.release('early');
  await first.getByText(/Painting · step 1\d of 20/).waitFor();
  await until('the bar to move', async () => await percent(first) > early + 20 && await percent(page.locator('.overall')) > overallEarly);
  assert.deepEqual(await page.getByRole('progressbar').evaluateAll(bars => bars.slice(-3).map(bar => bar.ariaValueNow)), ['0', '0', '0']);
  await world.release('late');
  await ended(page, 4);
  assert.equal(await page.locator('.overall').isVisible(), false);
  const seeds = await page.locator('.card-succeeded .seed').allTextContents();
  assert.equal(new Set(seeds).size, 4);
  await page.locator('.card-succeeded .seed').first().click();
  assert.equal(await page.getByLabel('Seed', {exact: true}).inputValue(), seeds[0]);

  // Given, it counts up.
  await page.getByLabel('Seed', {exact: true}).fill('18446744073709551615');
  await page.getByRole('button', {name: 'Fewer'}).click();
  await page.getByRole('button', {name: 'Fewer'}).click();
  await run(page);
  await ended(page, 2);
  assert.deepEqual((await page.locator('.card-succeeded .seed').allTextContents()).slice(0, 2), ['18446744073709551615', '0']);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('cancel', async () => {
  const page = await world.page();
  await openPrompt(page, steps(2000, 20));
  await run(page);
  await page.getByText(/Counting · step/).waitFor();
  await page.getByRole('button', {name: 'Cancel'}).click();
  await card(page, 'cancelled').waitFor();
  assert.equal(await card(page, 'cancelled').getByText('Cancelled').isVisible(), true);
  await until('ComfyUI to stop', async () => (await world.standin('/standin/state')).queue.running.length === 0);
  await page.context().close();
});

test('what ComfyUI refuses is told at its field', async () => {
  const page = await world.page();
  const prompt = {
    1: {class_type: 'EmptyImage', inputs: {width: 64, height: 64, batch_size: 1, color: 1}, _meta: {title: 'Paper'}},
    2: {class_type: 'SaveImage', inputs: {images: ['1', 0], filename_prefix: 'x'}},
  };
  await openPrompt(page, prompt);
  await page.getByLabel('Width').fill('0');
  await run(page);
  await card(page, 'failed').waitFor();
  assert.equal(await card(page, 'failed').locator('.mark').textContent(), 'Paper · Width: Value 0 smaller than min of 1');
  const width = page.locator('[data-field="1.width"]');
  assert.equal(await width.locator('.field-note').textContent(), 'Value 0 smaller than min of 1');
  assert.equal(await page.getByLabel('Width').getAttribute('aria-invalid'), 'true');
  assert.equal(await page.locator('[aria-invalid=true]').count(), 1);
  assert.equal(await page.evaluate(() => document.activeElement.closest('[data-field]').dataset.field), '1.width');
  await page.getByLabel('Width').fill('32');
  assert.equal(await width.locator('.field-note').isVisible(), false);
  await run(page);
  await ended(page);
  await page.context().close();
});

test('a node that raises is named', async () => {
  const page = await world.page();
  await openPrompt(page, {1: {class_type: 'TestRaise', inputs: {message: 'no paint left', kind: 'RuntimeError'}, _meta: {title: 'Brush'}}});
  await run(page);
  await card(page, 'failed').waitFor();
  assert.match(await card(page, 'failed').locator('.what').textContent(), /“Brush”.*no paint left/);
  await card(page, 'failed').getByText('Details').click();
  assert.equal(await card(page, 'failed').getByText('nodes_trouble.py').isVisible(), true);
  await page.reload();
  await card(page, 'failed').getByText(/“Brush”/).waitFor();
  await page.context().close();
});

test('a cut connection: the run goes on, is found again, and never is a success before it is one', async () => {
  const page = await world.page();
  const before = (await world.standin('/standin/state')).prompts.length;
  await world.hold('middle', {at: 'progress', class: 'KSampler', value: 10});
  await world.hold('last', {at: 'node', class: 'VAEDecode'});
  await page.getByLabel('What should be seen').fill('a thread that is cut');
  await run(page);
  await card(page, 'live').getByText(/Painting · step/).waitFor();
  const endedBefore = await page.locator('.card-succeeded').count();
  world.wire.cut();
  await world.release('middle');
  await card(page, 'live').getByText('Developing', {exact: true}).waitFor();
  world.wire.close();
  await page.getByText('Connection lost, trying again. The run goes on.').waitFor();
  assert.equal(await page.locator('.card-succeeded').count(), endedBefore);
  await world.release('last');
  await until('the task to end', async () => (await world.ask('/api/tasks?limit=1')).json().tasks[0].status === 'succeeded');
  assert.equal(await page.locator('.card-live').count(), 1);
  world.wire.open();
  await ended(page);
  await until('its picture', () => card(page, 'succeeded').locator('img').evaluate(image => image.naturalWidth === 512));
  assert.equal((await world.standin('/standin/state')).prompts.length, before + 1);
  await page.context().close();
});

test('a connection that dies without a word: the record is looked at', async () => {
  const page = await world.page();
  await world.hold('deaf', {at: 'progress', class: 'TestSteps', value: 5});
  await openPrompt(page, steps(10, 10), 'a dead line');
  await run(page);
  await page.getByText(/Counting · step [45] of 10/).waitFor();
  world.wire.silence('GET /api/run/ws');
  await world.release('deaf');
  await card(page, 'succeeded').filter({hasText: 'a dead line'}).waitFor();
  await page.context().close();
});

test('a key that is not good any more says nothing about the run', async () => {
  const page = await world.page();
  await world.hold('locked', {at: 'progress', class: 'TestSteps', value: 5});
  await openPrompt(page, steps(10, 10), 'locked out');
  await run(page);
  await page.getByText(/Counting · step [45] of 10/).waitFor();
  await page.route('**/api/tasks/*', route => route.fulfill({status: 401, json: {message: 'UnauthorizedError', error: {code: 'no_key', detail: 'x'}}}));
  world.wire.cut();
  await card(page, 'live').getByText('The server asks for a key.').waitFor();
  assert.equal(await card(page, 'failed').filter({hasText: 'asks for a key'}).count(), 0);
  await page.unroute('**/api/tasks/*');
  await world.release('locked');
  await card(page, 'succeeded').filter({hasText: 'locked out'}).waitFor();
  await page.context().close();
});

test('cancelled before it is known there; and why it cannot be', async () => {
  const page = await world.page();
  await openPrompt(page, steps(2000, 20));
  let answers = [404, 403];
  await page.route('**/api/tasks/*', route => route.request().method() === 'DELETE' && answers.length > 0
    ? route.fulfill({status: answers.shift(), json: {message: 'x', error: {code: 'key_not_set', detail: 'this needs API_KEY to be set'}}})
    : route.continue());
  await run(page);
  await page.getByText(/Counting · step/).waitFor();
  await card(page, 'live').getByRole('button', {name: 'Cancel'}).click();
  await page.getByText('It cannot be cancelled: this needs API_KEY to be set').waitFor();
  answers = [404];
  await card(page, 'live').getByRole('button', {name: 'Cancel'}).click();
  await card(page, 'cancelled').waitFor();
  assert.equal(answers.length, 0);
  await page.context().close();
});

test('a tab that nobody sees holds no stream open', async () => {
  const page = await world.page();
  await world.hold('unseen', {at: 'progress', class: 'TestSteps', value: 5});
  await openPrompt(page, steps(10, 10), 'unseen');
  await run(page);
  await page.getByText(/Counting · step [45] of 10/).waitFor();
  const streams = [];
  page.on('request', request => /\/events$/.test(request.url()) && streams.push(request));
  await page.reload();
  await until('a stream', () => streams.length > 0);
  await card(page, 'live').getByText(/Counting · step [45] of 10/).waitFor();
  const before = streams.length;
  const closed = page.waitForEvent('requestfailed', request => /\/events$/.test(request.url()));
  await page.evaluate(() => {
    Object.defineProperty(document, 'hidden', {value: true});
    document.dispatchEvent(new Event('visibilitychange'));
  });
  await closed;
  await world.release('unseen');
  await card(page, 'succeeded').filter({hasText: 'unseen'}).waitFor();
  assert.equal(streams.length, before);
  await page.context().close();
});

test('a run that fails while nobody listens has failed', async () => {
  const page = await world.page();
  const raised = async () => (await world.standin('/standin/state')).fired.filter(rule => rule.do === 'hold' && rule.at === 'node').length;
  const before = await raised();
  await world.hold('raise', {at: 'node', class: 'TestRaise'});
  await openPrompt(page, {1: {class_type: 'TestRaise', inputs: {message: 'unheard', kind: 'RuntimeError'}}});
  await run(page);
  await until('the node to run', async () => await raised() > before);
  world.wire.close();
  await world.release('raise');
  await until('the task to end', async () => (await world.ask('/api/tasks?limit=1')).json().tasks[0].status === 'failed');
  world.wire.open();
  await card(page, 'failed').waitFor();
  assert.equal(await page.locator('.card-succeeded').filter({hasText: 'unheard'}).count(), 0);
  await page.context().close();
});

test('after a reload: what runs is watched again, what has ended is there', async () => {
  const page = await world.page();
  await world.hold('lasting', {at: 'progress', class: 'TestSteps', value: 10});
  await openPrompt(page, steps(30, 20), 'lasting');
  await run(page);
  await page.getByText(/Counting · step/).waitFor();
  await page.reload();
  await card(page, 'live').getByText(/Counting · step/).waitFor();
  await world.release('lasting');
  const mine = page.locator('.card-succeeded').filter({hasText: 'lasting'});
  await mine.waitFor();
  assert.equal(await mine.locator('pre.text').last().textContent(), 'end');
  await page.reload();
  await mine.waitFor();
  assert.equal(await mine.locator('pre.text').last().textContent(), 'end');
  assert.equal(await page.locator('.card').count(), (await world.ask('/api/tasks?limit=24')).json().tasks.length);
  await mine.getByRole('button', {name: 'Use these settings'}).click();
  await page.getByText('Settings taken over.').waitFor();
  await page.context().close();
});

test('films, sounds, texts and files are shown as what they are', async () => {
  const page = await world.page();
  await openPrompt(page, {
    1: {class_type: 'TestVideo', inputs: {bytes: 4096}},
    2: {class_type: 'TestAudio', inputs: {seconds: 1}},
    3: {class_type: 'TestText', inputs: {text: 'words'}},
    4: {class_type: 'TestEcho', inputs: {value: 'x'}},
  }, 'kinds');
  await run(page);
  const made = page.locator('.card-succeeded').filter({hasText: 'words'});
  await made.waitFor();
  assert.equal(await made.locator('audio').count(), 1);
  assert.equal(await made.locator('pre.text').last().textContent(), 'words');
  assert.ok(await made.locator('a.tile-file').count() >= 1);
  await page.context().close();
});

test('viewer and comparison, by keys', async () => {
  const page = await world.page();
  await page.locator('.card-succeeded .tile img').first().waitFor();
  await page.locator('.card-succeeded button.tile').first().press('Enter');
  const name = page.locator('.viewer-name');
  const first = await name.textContent();
  await page.keyboard.press('ArrowRight');
  assert.notEqual(await name.textContent(), first);
  await page.keyboard.press('ArrowLeft');
  assert.equal(await name.textContent(), first);
  await page.keyboard.press('Escape');
  await page.getByRole('button', {name: 'Compare'}).nth(0).click();
  await page.getByRole('button', {name: 'Compare'}).nth(1).click();
  const slider = page.getByRole('slider', {name: 'How much of the first'});
  await slider.fill('20');
  assert.equal(await page.locator('.compare-top').evaluate(image => image.style.clipPath), 'inset(0px 80% 0px 0px)');
  await page.context().close();
});

test('the call for developers does what it says', async () => {
  await world.putPicture('given_a.png');
  const page = await world.page();
  await openWorkflow(page, documentFile('older.json'), 'Fünf Arten');
  await page.getByLabel('Beschreibung').fill('it\'s "quoted" $HOME `x` \\ 中');
  const before = (await world.standin('/standin/state')).prompts.length;
  await page.getByRole('button', {name: 'For developers'}).click();
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'comfy-agent-ui-code-'));
  const code = async (tab, file) => {
    await page.getByRole('button', {name: tab, exact: true}).click();
    fs.writeFileSync(path.join(directory, file), await page.locator('.code code').textContent());
  };
  await code('curl', 'call.sh');
  await code('JavaScript', 'call.mjs');
  await code('Python', 'call.py');
  const env = {...process.env, no_proxy: '127.0.0.1', http_proxy: ''};
  for (const [program, file] of [['bash', 'call.sh'], [process.execPath, 'call.mjs'], ['/usr/bin/python3', 'call.py']]) {
    await promisify(execFile)(program, [file], {cwd: directory, env});
    assert.equal(fs.readFileSync(path.join(directory, 'result.png')).subarray(1, 4).toString(), 'PNG');
    fs.rmSync(path.join(directory, 'result.png'));
  }
  const {prompts} = await world.standin('/standin/state');
  for (let n = before; n < prompts.length; n++) {
    const sent = await world.standin(`/standin/body/${n}`);
    assert.equal(JSON.parse(sent).prompt['2'].inputs.text, 'it\'s "quoted" $HOME `x` \\ 中');
    assert.match(sent, /"seed": 18446744073709551615,/);
  }
  assert.equal(prompts.length, before + 3);
  fs.rmSync(directory, {recursive: true});
  await page.context().close();
});

// As others do it, by the API.
const order = (prompt, metadata, headers = {}) =>
  world.ask('/api/run', {method: 'POST', body: JSON.stringify({prompt, metadata}), headers: {'content-type': 'application/json', ...headers}});
const saying = text => ({1: {class_type: 'TestText', inputs: {text}}});

test('whatever others have written into a task, the history is there', async () => {
  await order(saying('before all that'));
  for (const metadata of [{seeds: [null, 7, {id: 1, key: 2}], title: {a: 1}}, 'text', [1], {seeds: 'x', title: 5}])
    assert.equal((await order(saying('strange'), metadata)).status, 200);
  const page = await world.page();
  await page.locator('pre.text').filter({hasText: 'before all that'}).waitFor();
  assert.equal(await page.locator('pre.text').filter({hasText: 'strange'}).count(), 4);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('texts beside pictures are there after a reload', async () => {
  const page = await world.page();
  await openPrompt(page, {
    1: {class_type: 'EmptyImage', inputs: {width: 16, height: 16, batch_size: 1, color: 3}},
    2: {class_type: 'SaveImage', inputs: {images: ['1', 0], filename_prefix: 'beside'}},
    3: {class_type: 'TestText', inputs: {text: 'beside the picture'}},
  });
  await run(page);
  await ended(page);
  await page.reload();
  await card(page, 'succeeded').locator('pre.text').filter({hasText: 'beside the picture'}).waitFor();
  assert.equal(await card(page, 'succeeded').locator('img').count(), 1);
  await page.context().close();
});

test('many runs of others are all seen to their end', async () => {
  await world.hold('crowd', {at: 'node', class: 'TestSteps'});
  for (let n = 0; n < 11; n++)
    assert.equal((await order({1: {class_type: 'TestSteps', inputs: {n: 1, ms: 1, seed: n + 1000}}}, {title: 'in a crowd'}, {'x-fc-invocation-type': 'Async'})).status, 202);
  const page = await world.page();
  const mine = state => page.locator(`.card-${state}`).filter({has: page.locator('.bar[aria-label$="in a crowd"], .title[title="in a crowd"]')});
  await until('all of them', async () => await mine('live').count() === 11);
  await world.release('crowd');
  await until('their ends', async () => await mine('succeeded').count() === 11);
  await page.context().close();
});

test('a fault is shown at its own workflow’s field only', async () => {
  const paper = {
    1: {class_type: 'EmptyImage', inputs: {width: 0, height: 64, batch_size: 1, color: 1}, _meta: {title: 'Paper'}},
    2: {class_type: 'SaveImage', inputs: {images: ['1', 0], filename_prefix: 'x'}},
  };
  await order(paper, {}, {'x-fc-invocation-type': 'Async'});
  const page = await world.page();
  await openPrompt(page, {title: 'other', params: [{type: 'number', id: '1', key: 'width', title: 'Not that'}],
    prompt: {1: {class_type: 'TestEcho', inputs: {width: 3, value: 1}}}});
  await page.reload();
  await card(page, 'failed').getByText('Paper · width: Value 0 smaller than min of 1').waitFor();
  await page.context().close();
});

test('a list that cannot be read is no empty one', async () => {
  const page = await world.page();
  await page.route('**/api/tasks?*', route => route.fulfill({status: 503, body: ''}));
  await page.evaluate(() => localStorage.removeItem('comfy-agent.mine'));
  await page.reload();
  await page.getByText('Earlier results cannot be read at the moment.').waitFor();
  await page.unroute('**/api/tasks?*');
  await page.getByRole('button', {name: 'Show more'}).click();
  await page.locator('.card').first().waitFor();
  assert.equal(await page.getByText('Earlier results cannot be read at the moment.').isVisible(), false);
  await page.context().close();
});

test('an error of any shape is told', async () => {
  const page = await world.page();
  const tell = error => page.evaluate(async given => (await import('/ui/errors.js')).explain(given, null), error);
  const died = await tell({code: 'comfyui_died', detail: 'it went', exit: {signal: 9, out_of_memory: true}, log_tail: 'the last words'});
  assert.equal(died.sentence, 'ComfyUI ended unexpectedly while this ran.');
  assert.equal(died.details, 'it went\n\nComfyUI: signal 9, out_of_memory true\n\nthe last words');
  const odd = await tell({code: 'open', detail: 'a door', node_errors: {1: null, 2: {errors: [{message: 5, details: {}}], class_type: 'X'}}, exception_type: 'E', traceback: 'one text'});
  assert.equal(odd.sentence, 'a door');
  assert.equal(odd.marks[0].where, 'X');
  assert.match(odd.details, /^E\none text/);
  await page.context().close();
});
