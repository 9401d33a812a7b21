// The page: keeps one picture of the workspace and redraws what changed in it.
//
// Stable data-testid attributes, for tests: connection, banner, channel-NAME, act-as, hint, host-NAME
// (data-state well|ill), break-HOST-ACTION, messages > message, thread > thread-message, ephemeral,
// button-TEXT (lower case, joined by -), menu-ACTION, reaction-NAME, replies, reply, copy-link, file-NAME,
// composer, send, thread-composer, thread-send, thread-close, dialog, dialog-confirm, dialog-deny, toast.
import { attachment, blocks, el, emojiOf, file, icon, loadEmoji, mrkdwn, unescape } from './render.js';

const $ = (id) => document.getElementById(id);
const view = {
  as: recall('heal.as') || '', channel: recall('heal.channel') || '', thread: '', state: null, raw: '',
  newest: '', seen: {}, lastType: 0,
};

function recall(key) { try { return localStorage.getItem(key); } catch { return null; } }
function keep(key, value) { try { localStorage.setItem(key, value); } catch { /* private mode: not kept */ } }

// ---- Talking to the sandbox -----------------------------------------------------------------------

async function send(what, body) {
  try {
    const answer = await fetch(`/do/${what}`, {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ as: view.as, channel: view.channel, ...body }),
    });
    if (!answer.ok) throw new Error(await answer.text());
    const given = await answer.json();
    if (!given.ok) toast(given.error);
    return given.ok;
  } catch (error) {
    toast(`The sandbox did not take that: ${error.message}`);
    return false;
  }
}

let looking = false;
let again = false;
async function look() {
  if (looking) { again = true; return; }
  looking = true;
  const asked = new URLSearchParams({ as: view.as, channel: view.channel, thread: view.thread }).toString();
  const raw = await fetch(`/state?${asked}`).then((answer) => answer.text(), () => undefined);
  const current = asked === new URLSearchParams({ as: view.as, channel: view.channel, thread: view.thread }).toString();
  if (raw === undefined) offline();
  // An answer to an earlier question (another channel, another user) is not drawn.
  else if (!current) again = true;
  else if (raw !== view.raw) {
    view.raw = raw;
    try {
      view.state = JSON.parse(raw);
      draw();
    } catch (error) {
      console.error(error);
      toast(`The page could not draw that: ${error.message}`);
    }
  }
  setTimeout(() => { looking = false; if (again) { again = false; look(); } }, 60);
}

function follow() {
  const changes = new EventSource('/changes');
  changes.onmessage = look;
  changes.onerror = offline;
}

function offline() {
  $('banner').hidden = false;
  $('banner').textContent = 'The sandbox has stopped. Start it again with “heal sandbox”; this page reconnects by itself.';
  $('link').className = '';
  $('link').textContent = 'sandbox stopped';
  view.raw = '';
}

function toast(text, good) {
  const note = el('div', { class: `toast ${good ? 'good' : ''}`, testid: 'toast' }, text);
  $('toasts').append(note);
  while ($('toasts').children.length > 3) $('toasts').firstChild.remove();
  setTimeout(() => note.remove(), good ? 2500 : 8000);
}

// ---- Drawing --------------------------------------------------------------------------------------

const PALETTE = ['#7a5af8', '#c2410c', '#0e7490', '#a21caf', '#4d7c0f', '#b45309', '#1d4ed8', '#be185d'];
const colourOf = (name) => PALETTE[[...name].reduce((n, c) => (n * 31 + c.codePointAt(0)) >>> 0, 7) % PALETTE.length];

const ctx = {
  userName: (id) => view.state.users.find((u) => u.id === id)?.name || (id === view.state.bot.user_id ? view.state.bot.name : undefined),
  channelName: (id) => view.state.channels.find((c) => c.id === id)?.name,
  groupName: (id) => view.state.groups.find((g) => g.id === id)?.handle,
  openLink: (channel, ts) => { if (channel !== view.channel) openChannel(channel); openThread(ts, true); },
};

function author(m) {
  const isHeal = m.bot_id === view.state.bot.bot_id;
  if (isHeal) return { name: view.state.bot.name, app: true, heal: true };
  if (m.bot_id) return { name: m.username || m.bot_profile?.name || m.bot_id, app: true };
  return { name: ctx.userName(m.user) || m.user || 'somebody', app: false };
}

function avatar(who) {
  if (who.heal) return el('img', { class: 'avatar', src: '/icon.svg', alt: '' });
  const box = el('span', { class: 'avatar', 'aria-hidden': 'true' }, who.app ? icon('bell') : who.name.slice(0, 1).toUpperCase());
  box.style.background = who.app ? '#e5532d' : colourOf(who.name);
  return box;
}

const dateOf = (ts) => new Date(Number(ts.split('.')[0]) * 1000);
const clock = (ts) => dateOf(ts).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });

function draw() {
  const s = view.state;
  if (!s.users.some((u) => u.id === view.as)) { view.as = s.users[0]?.id || ''; again = true; }
  if (!s.channels.some((c) => c.id === view.channel)) {
    view.channel = (s.channels.find((c) => c.is_member) || s.channels[0])?.id || '';
    again = true;
    look();
    return;
  }
  drawLink(s);
  drawSide(s);
  const name = ctx.channelName(view.channel);
  $('channel-title').textContent = `# ${name}`;
  $('composer').placeholder = `Message #${name}, or /heal help`;
  $('topic').textContent = member() ? 'Alerts come in here. heal answers in their threads.' : 'heal is not in this channel.';
  document.title = `#${name} · heal sandbox`;
  const inThread = (m) => m.thread_ts && m.thread_ts !== m.ts;
  fill($('messages'), [...s.messages, ...s.ephemerals.filter((e) => !inThread(e))], 'message');
  followNewest(s);
  drawThread(s);
}

function drawLink(s) {
  $('link').className = s.connected ? 'on' : '';
  $('link').textContent = s.connected ? 'heal is connected' : s.seen ? 'heal is disconnected' : 'heal is starting…';
  $('banner').hidden = s.connected;
  $('banner').textContent = s.seen
    ? 'heal is disconnected. Alerts posted meanwhile are read when it is back.' : 'heal is starting…';
}

function drawSide(s) {
  if (view.seen[view.channel] === undefined) for (const c of s.channels) view.seen[c.id] = c.latest;
  view.seen[view.channel] = s.channels.find((c) => c.id === view.channel)?.latest;
  replace($('channels'), s.channels.map((c) => el('li', {}, el('button', {
    type: 'button', testid: `channel-${c.name}`, 'aria-current': c.id === view.channel,
    class: c.latest > (view.seen[c.id] || '') ? 'unread' : '', onclick: () => openChannel(c.id),
  }, `# ${c.name}`))));
  replace($('act-as'), s.users.map((u) => el('option', { value: u.id, selected: u.id === view.as },
    u.name + (u.groups.length ? ` (@${u.groups.join(', @')})` : u.external ? ' (external)' : ''))));
  $('act-as').value = view.as;
  $('hosts-panel').hidden = !s.hosts.length;
  $('hint').hidden = Boolean(recall('heal.broke'));
  replace($('hosts'), s.hosts.map(host));
}

function host(h) {
  const ill = !h.online || h.lines.some((l) => !l.ok);
  return el('article', { class: `host ${ill ? 'ill' : ''}`, testid: `host-${h.name}`, 'data-state': ill ? 'ill' : 'well' },
    el('h3', {}, el('span', { class: `dot ${h.online ? '' : 'bad'}`, title: h.online ? 'online' : 'offline' }), h.name, el('span', { class: 'role' }, h.role)),
    el('div', { class: 'where', title: `${h.instance_id} · ${h.address}` }, `${h.instance_id} · ${h.address}`),
    el('ul', {}, h.lines.map((l) => el('li', { class: l.ok ? '' : 'bad' }, el('span', { class: `dot ${l.ok ? '' : 'bad'}` }), el('span', {}, l.label), el('span', {}, l.detail)))),
    el('div', { class: 'acts' }, h.actions.map((a) => el('button', {
      type: 'button', testid: `break-${h.name}-${a.id}`,
      onclick: async (event) => {
        event.currentTarget.disabled = true;
        keep('heal.broke', '1');
        $('hint').hidden = true;
        await send('host', { host: h.name, action: a.id });
        view.raw = '';
        $('hosts').dataset.drawn = '';
        look();
      },
    }, a.label))));
}

/** Replaces children only when they differ, and keeps the focus where it was. */
function replace(parent, nodes) {
  const kept = nodes.filter(Boolean);
  const drawn = kept.map((n) => n.outerHTML).join('');
  if (parent.dataset.drawn === drawn) return;
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.testid : undefined;
  parent.replaceChildren(...kept);
  parent.dataset.drawn = drawn;
  if (focused) parent.querySelector(`[data-testid="${CSS.escape(focused)}"]`)?.focus();
}

/** Draws a list of messages, touching only those that changed. */
function fill(list, messages, testid) {
  if (list.dataset.of !== place(list)) list.stick = true;
  list.dataset.of = place(list);
  messages.sort((a, b) => (a.ts < b.ts ? -1 : 1));
  const old = new Map([...list.children].map((n) => [n.dataset.key, n]));
  const wanted = [];
  let day = '';
  for (const m of messages) {
    const its = dateOf(m.ts).toDateString();
    if (its !== day && testid === 'message') {
      day = its;
      const label = its === new Date().toDateString() ? 'Today' : dateOf(m.ts).toLocaleDateString('en-GB', { weekday: 'long', day: 'numeric', month: 'long' });
      wanted.push(old.get(its) || Object.assign(el('div', { class: 'day', 'data-key': its }, label)));
    }
    const picture = JSON.stringify(m) + (m.reactions ? view.as : '') + (m.ts === view.thread && !$('thread').hidden);
    let node = old.get(m.ts);
    if (!node || node.picture !== picture) {
      const fresh = drawn(m, testid);
      fresh.picture = picture;
      if (node && node.contains(document.activeElement)) {
        const id = document.activeElement.dataset.testid;
        queueMicrotask(() => fresh.querySelector(`[data-testid="${CSS.escape(id || '-')}"]`)?.focus());
      }
      node = fresh;
    }
    wanted.push(node);
  }
  if (!messages.length) wanted.push(el('div', { class: 'empty', 'data-key': 'empty' }, member() ? 'Nothing here yet. Break something on a host, and its alert comes in here.' : 'heal is not in this channel: nobody reads alerts here.'));
  wanted.forEach((node, i) => { if (list.children[i] !== node) list.insertBefore(node, list.children[i] || null); });
  while (list.children.length > wanted.length) list.lastChild.remove();
  toEnd(list);
}

/** A list that was read to its end stays there, whatever grows in it or narrows it. */
const toEnd = (list) => { if (list.stick) list.scrollTop = list.scrollHeight; };
function stick(list) {
  const near = () => list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  list.addEventListener('scroll', () => { if (near()) list.stick = true; });
  // Only a person leaves the end; a change of layout does not.
  for (const by of ['wheel', 'touchmove', 'keydown', 'pointerdown']) {
    list.addEventListener(by, () => requestAnimationFrame(() => { list.stick = near(); }), { passive: true });
  }
  new ResizeObserver(() => toEnd(list)).observe(list);
}

const member = () => view.state.channels.find((c) => c.id === view.channel)?.is_member;
const place = (list) => (list.id === 'messages' ? view.channel : `${view.channel} ${view.thread}`);

/** A message that has an alien shape is shown as what it is; it must not take the others down. */
function drawn(m, testid) {
  try {
    return message(m, testid);
  } catch (error) {
    console.warn('a message cannot be drawn', error, m);
    return el('article', { class: 'msg', testid, 'data-key': m.ts, 'data-ts': m.ts },
      avatar({ name: '?' }), el('div', { class: 'body' }, el('div', { class: 'note' }, 'A message of an unknown shape'), el('pre', {}, JSON.stringify(m, null, 1))));
  }
}

function message(m, testid) {
  const who = author(m);
  const mine = { ...ctx, press: (element, option, node) => press(m, element, option, node) };
  const edited = m.edited && !m.bot_id ? el('span', { class: 'edited' }, '(edited)') : undefined;
  const blocksShown = m.blocks?.length ? blocks(m.blocks, mine) : undefined;
  const replies = testid === 'message' && m.reply_count > 0;
  const body = el('div', { class: 'body' },
    !blocksShown && m.text && el('div', { class: 'said' }, mrkdwn(m.text, mine), edited), blocksShown, blocksShown && edited,
    (m.attachments || []).map((a) => attachment(a, mine)),
    (m.files || []).map((f) => file(f)),
    m.reactions && el('div', { class: 'pills' }, m.reactions.map((r) => el('button', {
      type: 'button', class: `pill ${r.users.includes(view.as) ? 'mine' : ''}`, testid: `reaction-${r.name}`,
      title: `${r.users.map((u) => ctx.userName(u) || u).join(', ')} reacted with :${r.name}:`,
      onclick: () => send('react', { ts: m.ts, name: r.name, add: !r.users.includes(view.as) }),
    }, `${emojiOf(r.name)} ${r.count}`))),
    replies && el('button', { type: 'button', class: 'replies', testid: 'replies', onclick: () => openThread(m.ts, true) },
      avatar({ heal: true }), `${m.reply_count} ${m.reply_count === 1 ? 'reply' : 'replies'}`, el('small', {}, `last at ${clock(m.latest_reply || m.ts)}`)));
  return el('article', {
    class: `msg ${m.is_ephemeral ? 'private' : ''} ${m.ts === view.thread && testid === 'message' && !$('thread').hidden ? 'open' : ''}`,
    testid: m.is_ephemeral ? 'ephemeral' : testid, 'data-key': m.ts, 'data-ts': m.ts, 'data-author': who.name,
  },
  m.is_ephemeral && el('div', { class: 'note' }, icon('eye'), 'Only visible to you'),
  avatar(who),
  el('div', {}, el('div', { class: 'who' }, el('b', {}, who.name), who.app && el('span', { class: 'badge' }, 'APP'),
    el('time', { datetime: dateOf(m.ts).toISOString(), title: dateOf(m.ts).toLocaleString() }, clock(m.ts)),
    m.edited && m.bot_id && el('span', { class: 'edited' }, '(edited)')), body),
  !m.is_ephemeral && el('div', { class: 'tools' },
    testid === 'message' && el('button', { type: 'button', class: 'icon', testid: 'reply', 'aria-label': 'Reply in the thread', title: 'Reply in the thread', onclick: () => openThread(m.ts, true) }, icon('thread')),
    el('button', { type: 'button', class: 'icon', testid: 'copy-link', 'aria-label': 'Copy the link', title: 'Copy the link (for /heal why)', onclick: () => copyLink(m) }, icon('link'))));
}

async function copyLink(m) {
  const inThread = m.thread_ts && m.thread_ts !== m.ts ? `?thread_ts=${m.thread_ts}&cid=${view.channel}` : '';
  const url = `https://${view.state.team}.slack.com/archives/${view.channel}/p${m.ts.replace('.', '')}${inThread}`;
  try {
    await navigator.clipboard.writeText(url);
    toast('The link is copied; try /heal why LINK', true);
  } catch { toast(url, true); }
}

// ---- Doing ----------------------------------------------------------------------------------------

async function press(m, element, option, node) {
  if (element.confirm && !(await confirmed(element.confirm))) return;
  node.setAttribute('aria-busy', 'true');
  await send('click', { ts: m.ts, action_id: element.action_id, option });
  node.removeAttribute('aria-busy');
}

function confirmed(c) {
  const dialog = $('dialog');
  $('dialog-title').textContent = c.title.text;
  $('dialog-text').replaceChildren(...(c.text.type === 'mrkdwn' ? mrkdwn(c.text.text, ctx) : [unescape(c.text.text)]));
  $('dialog-deny').textContent = c.deny.text;
  $('dialog-deny').className = 'btn';
  $('dialog-confirm').textContent = c.confirm.text;
  $('dialog-confirm').className = `btn ${c.style === 'danger' ? 'danger' : 'primary'}`;
  return new Promise((done) => {
    $('dialog-confirm').onclick = () => dialog.close('yes');
    $('dialog-deny').onclick = () => dialog.close('no');
    dialog.onclose = () => done(dialog.returnValue === 'yes');
    dialog.returnValue = '';
    dialog.showModal();
    $('dialog-confirm').focus();
  });
}

function openChannel(id) {
  view.channel = id;
  view.thread = '';
  view.newest = '';
  view.raw = '';
  $('thread').hidden = true;
  $('side').classList.remove('shown');
  keep('heal.channel', id);
  look();
}

function openThread(ts, byHand) {
  view.thread = ts;
  view.raw = '';
  $('thread').hidden = false;
  if (byHand) setTimeout(() => $('thread-composer').focus(), 0);
  look();
}

/** The newest alert's thread opens by itself, unless somebody is writing in another. */
function followNewest(s) {
  if (!s.newest_thread || s.newest_thread <= view.newest) return;
  view.newest = s.newest_thread;
  const writing = $('thread-composer').value || document.activeElement === $('thread-composer');
  const narrow = matchMedia('(max-width: 980px)').matches;
  if (!writing && !narrow && view.thread !== s.newest_thread) openThread(s.newest_thread, false);
}

function drawThread(s) {
  if ($('thread').hidden || s.thread.ts !== view.thread) return;
  if (!s.thread.parent) { $('thread').hidden = true; return; }
  const name = ctx.channelName(view.channel);
  $('thread-of').textContent = `# ${name}`;
  $('thread-composer').placeholder = 'Reply, or @heal pause';
  const own = s.ephemerals.filter((e) => e.thread_ts === view.thread);
  fill($('replies'), [s.thread.parent, ...s.thread.replies, ...own], 'thread-message');
}

function composer(form, field, thread) {
  const grow = () => { field.style.height = 'auto'; field.style.height = `${field.scrollHeight}px`; };
  field.addEventListener('input', grow);
  field.addEventListener('keydown', (e) => {
    if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); form.requestSubmit(); }
  });
  form.addEventListener('submit', async (e) => {
    e.preventDefault();
    const text = field.value.trim();
    if (!text) return;
    const command = /^\/(\S+)\s*([\s\S]*)$/.exec(text);
    if (command && command[1] !== view.state.bot.name) {
      toast(`“/${command[1]}” is not a command here; /${view.state.bot.name} help lists what there is.`);
      return;
    }
    field.value = '';
    grow();
    const to = thread() || undefined;
    const sent = command ? await send('slash', { text: command[2], thread: to }) : await send('post', { text, thread: to });
    if (!sent && !field.value) { field.value = text; grow(); }
  });
}

function begin() {
  stick($('messages'));
  stick($('replies'));
  composer($('composer-form'), $('composer'), () => '');
  composer($('thread-form'), $('thread-composer'), () => view.thread);
  $('thread-close').addEventListener('click', () => { $('thread').hidden = true; view.thread = ''; view.raw = ''; look(); });
  $('menu').addEventListener('click', () => {
    const shown = $('side').classList.toggle('shown');
    $('menu').setAttribute('aria-expanded', shown);
  });
  $('main').addEventListener('click', (e) => { if (!e.target.closest('#menu')) $('side').classList.remove('shown'); });
  $('act-as').addEventListener('change', (e) => { view.as = e.target.value; keep('heal.as', view.as); view.raw = ''; look(); });
  document.addEventListener('keydown', (e) => {
    if (e.key === 'Escape' && !$('dialog').open && !$('thread').hidden) $('thread-close').click();
  });
  look();
  follow();
}

loadEmoji().then(begin, begin);
