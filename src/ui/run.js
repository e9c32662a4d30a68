// One task from the click to its end, whatever happens to the connection in between.
//
//     begin ─► WebSocket ─ result, error, cut ─┐
//                 └ refused ─► POST (Async) ───┤
//     resume (after a reload) ─────────────────┴─► follow: the record decides ─► ended
//                                                    └ not over: events, or ask again in a while
//
// The task has an id of ours and goes on without us, so a lost connection is only that: what the
// record says is the end, and nothing else is. A connection can also die without a word (a laptop
// that slept, a phone that changed networks), so silence makes us look at the record, too.
//
// The WebSocket comes first because it alone carries previews, and because browsers open six
// connections to a server, for all tabs together, which eight event streams would use up: there are
// STREAMS_MAX at most, and none in a tab that nobody sees.

import {address, ask, freshTaskId, socket, taskPath} from './api.js';

const STREAMS_MAX = 2;
const LOOK_MS = 1500;
const SILENCE_MS = 6000;
const ANSWER_MS = 10000; // a record that takes longer is asked for again, by another connection
const AGAIN_MS = [300, 700, 1500, 3000];
const NOT_YET_MAX = 40; // looks (one a second) at a task that is not there yet: on a platform it waits to be delivered
const ENDED = ['succeeded', 'failed', 'cancelled'];

const isSeed = seed => seed !== null && typeof seed === 'object' && ['id', 'key', 'text'].every(name => typeof seed[name] === 'string');

let streams = 0;
const pause = ms => new Promise(resolve => setTimeout(resolve, ms));
const askRecord = id => ask(taskPath(id), typeof AbortSignal.timeout === 'function' ? {signal: AbortSignal.timeout(ANSWER_MS)} : undefined);

export class Run {
  // prompt: what is run (null: not known). since: when it was begun, if not now. onchange is called on any news.
  constructor({id, title, prompt, graph, since, onchange}) {
    this.id = id || freshTaskId();
    this.title = title;
    this.prompt = prompt;
    this.graph = graph;
    this.onchange = onchange;
    this.status = 'sending';
    this.nodes = {};
    this.share = 0;
    this.position = null;
    this.error = null; // {code, detail, …} as the agent tells it
    this.record = null;
    this.preview = null; // address of a blob
    this.away = null; // why nothing is heard at the moment: reconnecting, no_key
    this.heard = 0; // when a connection last said something
    this.cancelling = false;
    this.started = since || Date.now();
    this.own = false; // begun here: its time is that of our clock, which may not be the server's
  }

  get ended() {
    return ENDED.includes(this.status);
  }

  // Anything may lie there: whoever calls the API says what.
  get metadata() {
    return (this.record && this.record.metadata) || {};
  }

  get seeds() {
    const drawn = Object.entries((this.record && this.record.seeds) || {}).map(([at, value]) => {
      const dot = at.lastIndexOf('.');
      return {id: at.slice(0, dot), key: at.slice(dot + 1), text: String(value)};
    });
    const {seeds: told} = this.metadata;
    const given = this.prompt ? this.prompt.seeds().filter(seed => seed.text !== '-1') : Array.isArray(told) ? told.filter(isSeed) : [];
    return [...drawn, ...given.filter(seed => !drawn.some(other => other.id === seed.id && other.key === seed.key))];
  }

  // Width to height of what will come, where a node says so; null otherwise.
  get shape() {
    for (const node of (this.prompt ? this.prompt.nodes.values() : [])) {
      const [width, height] = ['width', 'height'].map(key => node.inputs.get(key));
      if (width && height && width.value > 0 && height.value > 0)
        return `${width.value} / ${height.value}`;
    }
    return null;
  }

  get outputs() {
    return (this.record && this.record.outputs) || [];
  }

  // Texts that nodes have shown.
  get texts() {
    return Object.values((this.record && this.record.nodes) || {}).flatMap(node => node.text || []);
  }

  get elapsed() {
    const record = this.record;
    if (this.ended && record && record.finished > 0)
      return record.finished - (record.started || record.created);
    return Date.now() - this.started;
  }

  // --- towards the end -----------------------------------------------------------------------

  // onsent: it is on its way, or has to find another; whoever begins several waits for that, so that
  // they are queued in their order.
  async begin(onsent) {
    if (this.cancelling) {
      this.fail({code: 'cancelled', detail: ''});
      onsent();
      return;
    }
    const envelope = `{"prompt": ${this.prompt.text}, "metadata": ${JSON.stringify({title: this.title, seeds: this.seeds})}}`;
    this.body = envelope;
    this.own = true;
    if (await this.overSocket(onsent) === 'refused' && !this.ended)
      await this.post();
    onsent();
    await this.follow();
  }

  async resume() {
    await this.follow();
  }

  // 'told' (result or error), 'cut', or 'refused' (there are no WebSockets here).
  overSocket(onsent) {
    return new Promise(resolve => {
      const ws = socket(`api/run/ws?task-id=${this.id}&results=none&previews=1`);
      let outcome = 'refused';
      const look = this.lookAgain(() => ws.close());
      ws.binaryType = 'arraybuffer';
      ws.onopen = () => {
        this.heard = Date.now();
        ws.send(this.body);
        outcome = 'cut';
        onsent();
      };
      ws.onmessage = message => {
        if (this.hear(message.data))
          outcome = 'told';
      };
      ws.onclose = () => {
        clearInterval(look);
        resolve(outcome);
      };
    });
  }

  // Looks at the record now and then while a connection is open. onend: the record knew the end first,
  // so the connection is one that will not tell it.
  lookAgain(onend) {
    let looking = false;
    const timer = setInterval(async () => {
      if (looking || !this.isQuiet)
        return;
      looking = true;
      await this.look();
      looking = false;
      if (this.ended) {
        clearInterval(timer);
        onend();
      }
    }, LOOK_MS);
    return timer;
  }

  // Until nodes run, only the record says where in the queue it is.
  get isQuiet() {
    return this.status !== 'running' || Date.now() - this.heard > SILENCE_MS;
  }

  async look() {
    const answer = await askRecord(this.id);
    if (this.ended || !this.isQuiet)
      return;
    if (answer.status === 200) {
      this.take(answer.json);
      if (this.status === 'running')
        this.heard = Date.now(); // the record has, which will do for a while
    } else if (answer.status === 0 && Date.now() - this.heard > SILENCE_MS) {
      this.away = 'reconnecting';
      this.onchange(this);
    }
  }

  // True: it was the end, as far as this connection goes.
  hear(data) {
    this.heard = Date.now();
    if (data instanceof ArrayBuffer) {
      this.hearPreview(data);
      return false;
    }
    const message = JSON.parse(data);
    if (message.type === 'progress')
      this.hearNodes(message.data);
    else if (message.type === 'error')
      this.refusal = message.data.error;
    return message.type === 'result' || message.type === 'error';
  }

  hearNodes(nodes) {
    if (this.ended) // the record was faster than the socket
      return;
    this.nodes = nodes;
    if (Object.values(nodes).some(node => node.max > 0)) {
      this.status = 'running';
      this.position = null;
    }
    if (this.graph) // a resubmission begins anew; a bar that goes back says nothing to anybody
      this.share = Math.max(this.share, this.graph.share(nodes));
    this.away = null;
    this.onchange(this);
  }

  // u32 4, u32 n, n bytes of JSON, the image.
  hearPreview(data) {
    const view = new DataView(data);
    const length = data.byteLength >= 8 ? view.getUint32(4) : 0;
    if (this.ended || data.byteLength < 8 + length || view.getUint32(0) !== 4)
      return;
    const about = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 8, length)));
    this.dropPreview();
    this.preview = URL.createObjectURL(new Blob([new Uint8Array(data, 8 + length)], {type: about.image_type}));
    this.onchange(this);
  }

  dropPreview() {
    if (this.preview)
      URL.revokeObjectURL(this.preview);
    this.preview = null;
  }

  // False: it was refused, and this.refusal says why.
  async post() {
    const answer = await ask(`api/run?task-id=${this.id}`, {
      method: 'POST', body: this.body, headers: {'content-type': 'application/json', 'x-fc-invocation-type': 'Async'},
    });
    if (answer.status === 202 || answer.status === 200 || answer.status === 0)
      return true;
    this.refusal = (answer.json && answer.json.error) || {code: `http_${answer.status}`, detail: answer.text.slice(0, 300)};
    return false;
  }

  async follow() {
    let missing = 0;
    for (let tries = 0; !this.ended; tries++) {
      const answer = await askRecord(this.id);
      if (this.ended)
        break;
      if (answer.status === 200) {
        tries = missing = 0;
        this.take(answer.json);
        if (!this.ended && !await this.watch())
          await pause(1000);
      } else if (answer.status === 404) {
        await this.isMissing(++missing);
      } else if (this.refusal && (answer.status === 401 || answer.status === 403)) {
        this.fail(this.refusal);
      } else { // not to be had, or not for us: the run may go on all the same
        this.away = answer.status === 401 || answer.status === 403 ? 'no_key' : 'reconnecting';
        this.onchange(this);
        await pause(AGAIN_MS[Math.min(tries, AGAIN_MS.length - 1)]);
      }
    }
  }

  // Refused before there was a record; or cut before it was sent: sent again it is the same task.
  async isMissing(times) {
    if (this.refusal)
      this.fail(this.refusal);
    else if (times > (this.body || Date.now() - this.started < NOT_YET_MAX * 1000 ? NOT_YET_MAX : 3))
      this.fail({code: 'lost', detail: ''});
    else if (!this.body || times % 5 !== 1 || await this.post())
      await pause(1000);
  }

  // Events until they end; false: not to be had, or too many are open.
  watch() {
    if (streams >= STREAMS_MAX || document.hidden || typeof EventSource === 'undefined')
      return false;
    streams++;
    this.heard = Date.now();
    return new Promise(resolve => {
      const source = new EventSource(address(`${taskPath(this.id)}/events`));
      let heard = false;
      let closed = false;
      const close = () => {
        if (closed)
          return;
        closed = true;
        streams--;
        source.close();
        clearInterval(look);
        document.removeEventListener('visibilitychange', close);
        resolve(heard);
      };
      const look = this.lookAgain(close);
      document.addEventListener('visibilitychange', close);
      source.addEventListener('progress', event => {
        heard = true;
        this.heard = Date.now();
        this.hearNodes(JSON.parse(event.data));
      });
      source.addEventListener('result', close);
      source.addEventListener('error', close); // told, or the connection is cut: the record decides
    });
  }

  // --- what is known -------------------------------------------------------------------------

  take(record) {
    this.record = record;
    this.away = null;
    if (!this.own) // the first look knows best: between two of them nothing may have been updated
      this.started = Math.min(this.started, Date.now() - Math.max(0, record.updated - record.created));
    this.title = this.title || (typeof this.metadata.title === 'string' ? this.metadata.title : '');
    this.position = typeof record.queue_position === 'number' ? record.queue_position : null;
    if (record.nodes && !ENDED.includes(record.status))
      this.hearNodes(record.nodes);
    if (!this.graph) // what it is made of is not known, but the agent knows how far it is
      this.share = Math.max(this.share, record.progress || 0);
    this.status = record.status;
    if (this.ended) {
      this.error = record.error;
      this.end();
    }
    this.onchange(this);
  }

  fail(error) {
    this.status = error.code === 'cancelled' ? 'cancelled' : 'failed';
    this.error = error;
    this.end();
    this.onchange(this);
  }

  // A page stays open for days, and prompts are large: only who looks for a fault needs them any more.
  end() {
    this.body = null;
    this.graph = null;
    this.nodes = {};
    if (this.status !== 'failed' && this.record)
      this.prompt = null;
    this.dropPreview();
  }

  // Null, or a sentence: why it cannot be. What is not there yet is cancelled once it is.
  async cancel() {
    this.cancelling = true;
    this.onchange(this);
    for (let tries = 0; !this.ended; tries++) {
      const answer = await ask(taskPath(this.id), {method: 'DELETE'});
      if (answer.status === 200 || answer.status === 202)
        return null;
      if ((answer.status !== 404 && answer.status !== 0) || tries === NOT_YET_MAX) {
        this.cancelling = false;
        this.onchange(this);
        return (answer.json && answer.json.error && answer.json.error.detail) || `HTTP ${answer.status}`;
      }
      await pause(1000);
    }
    return null;
  }

  // A task that somebody has run, from the list of them.
  static ofRecord(record, onchange) {
    const run = new Run({id: record.id, title: '', prompt: null, graph: null, onchange: () => {}});
    run.take(record);
    run.onchange = onchange;
    return run;
  }
}
