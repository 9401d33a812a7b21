// Turns Slack's markup, blocks and attachments into DOM nodes. Text only ever becomes text nodes, so
// nothing a message says can become markup of the page.

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'class') node.className = value;
    else if (name === 'testid') node.dataset.testid = value;
    else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true && !name.startsWith('aria-') ? '' : value);
  }
  node.append(...children.flat().filter((c) => c instanceof Node || (typeof c === 'string' && c)));
  return node;
}

export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `#i-${name}`);
  svg.setAttribute('aria-hidden', 'true');
  svg.append(use);
  return svg;
}

export const emoji = new Map();
export async function loadEmoji() {
  const text = await (await fetch('/emoji.txt')).text();
  for (const line of text.split('\n')) {
    const at = line.indexOf(' ');
    if (at > 0) emoji.set(line.slice(0, at), line.slice(at + 1));
  }
}
export const emojiOf = (name) => emoji.get(name.split('::')[0]) || `:${name}:`;

export const unescape = (t) => t.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&');
const withEmoji = (t) => t.replace(/:([a-z0-9_+'-]+):/g, (whole, name) => emoji.get(name) || whole);
const slug = (t) => t.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '');

// ---- mrkdwn -------------------------------------------------------------------------------------

/** Slack's mrkdwn as nodes. `ctx` names people, groups and channels and opens links. */
export function mrkdwn(text, ctx) {
  const out = [];
  const parts = String(text ?? '').split(/```/);
  parts.forEach((part, i) => {
    if (i % 2 === 1 && i < parts.length - 1) {
      out.push(el('pre', {}, codeText(part.replace(/^\n|\n$/g, ''))));
    } else {
      const given = i % 2 === 1 ? '```' + part : part;
      const trimmed = given.replace(i > 0 ? /^\n/ : /^$/, '').replace(i < parts.length - 1 ? /\n$/ : /$^/, '');
      if (trimmed) out.push(...lines(trimmed, ctx));
    }
  });
  return out;
}

function lines(text, ctx) {
  const out = [];
  let plain = [];
  const flush = () => {
    if (plain.length) out.push(el('span', { class: 'pre' }, inline(plain.join('\n'), ctx)));
    plain = [];
  };
  const all = text.split('\n');
  for (let i = 0; i < all.length; i++) {
    if (all[i].startsWith('&gt;')) {
      flush();
      const quoted = [];
      while (i < all.length && all[i].startsWith('&gt;')) quoted.push(all[i++].replace(/^&gt;\s?/, ''));
      i--;
      out.push(el('blockquote', { class: 'pre' }, inline(quoted.join('\n'), ctx)));
    } else plain.push(all[i]);
  }
  flush();
  return out;
}

/** The text of code: links in it show as they were written. */
function codeText(t) {
  return unescape(t.replace(/<((?:https?|mailto):[^|>]+)(?:\|([^>]*))?>/g, (_, url, label) => label || url));
}

// A word joiner (U+2060) beside a character makes it no markup: so heal shows what others wrote.
const INLINE = /(`[^`\n]+`)|<([^<>\n]+)>|(?<![\p{L}\p{N}*])\*(?=[^\s\u2060])([^*\n]*[^*\s])\*(?![\p{L}\p{N}])|(?<![\p{L}\p{N}_])_(?=[^\s\u2060])([^_\n]*[^_\s])_(?![\p{L}\p{N}])|(?<![\p{L}\p{N}~])~(?=[^\s\u2060])([^~\n]*[^~\s])~(?![\p{L}\p{N}])/u;

function inline(text, ctx) {
  const out = [];
  let rest = text;
  while (rest) {
    const m = INLINE.exec(rest);
    if (!m) { out.push(withEmoji(unescape(rest))); break; }
    if (m.index) out.push(withEmoji(unescape(rest.slice(0, m.index))));
    if (m[1]) out.push(code(codeText(m[1].slice(1, -1))));
    else if (m[2]) out.push(control(m[2], ctx));
    else if (m[3]) out.push(el('b', {}, inline(m[3], ctx)));
    else if (m[4]) out.push(el('i', {}, inline(m[4], ctx)));
    else out.push(el('s', {}, inline(m[5], ctx)));
    rest = rest.slice(m.index + m[0].length);
  }
  return out;
}

// A name or an id is not broken at its hyphens; a command may be.
const code = (t) => el('code', { class: t.length <= 30 && !t.includes(' ') && 'short' }, t);

function control(inside, ctx) {
  const [what, label] = inside.split(/\|(.*)/s);
  const mention = (t) => el('span', { class: 'mention' }, t);
  if (what.startsWith('@')) return mention('@' + (ctx.userName(what.slice(1)) || label || what.slice(1)));
  if (what.startsWith('#')) return mention('#' + (ctx.channelName(what.slice(1)) || label || what.slice(1)));
  if (what.startsWith('!subteam^')) return mention(label || '@' + (ctx.groupName(what.slice(9)) || what.slice(9)));
  if (what.startsWith('!date^')) return date(what.slice(6), label);
  if (what.startsWith('!')) return mention('@' + what.slice(1));
  return link(unescape(what), label ? withEmoji(unescape(label)) : undefined, ctx);
}

export function link(url, label, ctx) {
  if (!/^(https?:|mailto:|tel:)/i.test(url)) return document.createTextNode(label || url);
  const own = /^https:\/\/[^/]+\.slack\.com\/archives\/([A-Z0-9]+)\/p(\d{10})(\d{6})(?:\?thread_ts=([\d.]+))?/.exec(url);
  const node = el('a', { href: url, target: '_blank', rel: 'noopener noreferrer' }, label || url);
  if (own) node.addEventListener('click', (e) => { e.preventDefault(); ctx.openLink(own[1], own[4] || `${own[2]}.${own[3]}`); });
  return node;
}

function date(spec, fallback) {
  const [ts, format, url] = spec.split('^');
  const at = new Date(Number(ts) * 1000);
  if (!format || Number.isNaN(at.getTime())) return document.createTextNode(unescape(fallback || ''));
  const day = (o) => at.toLocaleDateString('en-GB', o);
  const near = (else_) => {
    const days = Math.round((new Date(at).setHours(0, 0, 0, 0) - new Date().setHours(0, 0, 0, 0)) / 864e5);
    return { '-1': 'yesterday', 0: 'today', 1: 'tomorrow' }[days] || else_;
  };
  const token = {
    date_num: at.toISOString().slice(0, 10),
    date: day({ month: 'long', day: 'numeric', year: 'numeric' }),
    date_short: day({ month: 'short', day: 'numeric', year: 'numeric' }),
    date_long: day({ weekday: 'long', month: 'long', day: 'numeric', year: 'numeric' }),
    time: at.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' }),
    time_secs: at.toLocaleTimeString('en-GB'),
    ago: ago(at),
  };
  token.date_pretty = near(token.date);
  token.date_short_pretty = near(token.date_short);
  token.date_long_pretty = near(token.date_long);
  const text = format.replace(/\{(\w+)\}/g, (whole, name) => token[name] ?? whole);
  const node = el('time', { title: at.toLocaleString(), datetime: at.toISOString() }, text);
  return url && /^https?:/.test(url) ? el('a', { href: url, target: '_blank', rel: 'noopener noreferrer' }, node) : node;
}

function ago(at) {
  const s = Math.round((Date.now() - at) / 1000);
  const [n, unit] = Math.abs(s) < 60 ? [s, 'second'] : Math.abs(s) < 3600 ? [Math.round(s / 60), 'minute'] : [Math.round(s / 3600), 'hour'];
  const words = `${Math.abs(n)} ${unit}${Math.abs(n) === 1 ? '' : 's'}`;
  return n < 0 ? `in ${words}` : `${words} ago`;
}

const textOf = (object, ctx) => (object?.type === 'mrkdwn' ? mrkdwn(object.text, ctx) : [el('span', { class: 'pre' }, withEmoji(object?.text ?? ''))]);

// ---- Blocks -------------------------------------------------------------------------------------

export function blocks(list, ctx) {
  return el('div', { class: 'blocks' }, (list || []).map((b) => block(b, ctx)));
}

function block(b, ctx) {
  switch (b.type) {
    case 'header': return el('div', { class: 'header', role: 'heading', 'aria-level': 3 }, withEmoji(b.text?.text ?? ''));
    case 'divider': return el('hr');
    case 'section': return el('div', { class: 'section' },
      el('div', {}, b.text && el('div', {}, textOf(b.text, ctx)),
        b.fields && el('div', { class: 'fields' }, b.fields.map((f) => el('div', {}, textOf(f, ctx))))),
      b.accessory && element(b.accessory, ctx));
    case 'context': return el('div', { class: 'context' }, b.elements.map((e) => (e.type === 'image' ? image(e) : el('span', {}, textOf(e, ctx)))));
    case 'actions': return el('div', { class: 'actions' }, b.elements.map((e) => element(e, ctx)));
    case 'markdown': return el('div', { class: 'pre' }, mrkdwn(b.text.replace(/\*\*/g, '*'), ctx));
    case 'rich_text': return el('div', {}, b.elements.map((e) => rich(e, ctx)));
    case 'image': return image(b);
    default: return el('div', { class: 'footer' }, `[${b.type}]`);
  }
}

// The page loads nothing from elsewhere, so an image shows as its text.
const image = (b) => el('span', { class: 'badge' }, b.alt_text || 'image');

function element(e, ctx) {
  if (e.type === 'button') {
    const label = withEmoji(e.text?.text ?? '');
    if (/^https?:/.test(e.url || '')) return el('a', { class: 'btn', href: e.url, target: '_blank', rel: 'noopener noreferrer' }, label);
    return el('button', {
      type: 'button', class: `btn ${e.style || ''}`, testid: `button-${slug(e.text?.text ?? '')}`,
      'aria-label': e.accessibility_label,
      onclick: (event) => ctx.press(e, undefined, event.currentTarget),
    }, label);
  }
  if (e.options) {
    const menu = el('select', { class: 'btn', testid: `menu-${slug(e.action_id || 'menu')}`, 'aria-label': e.placeholder?.text || 'More' },
      el('option', { value: '' }, e.placeholder?.text || '⋯'), e.options.map((o) => el('option', { value: o.value }, o.text.text)));
    menu.addEventListener('change', () => { if (menu.value) ctx.press(e, menu.value, menu); menu.value = ''; });
    return menu;
  }
  return e.type === 'image' ? image(e) : el('span', { class: 'badge' }, e.type);
}

function rich(e, ctx) {
  const pieces = () => e.elements.map((p) => piece(p, ctx));
  switch (e.type) {
    case 'rich_text_preformatted': return el('pre', {}, e.elements.map((p) => p.text ?? p.url ?? ''));
    case 'rich_text_quote': return el('blockquote', { class: 'pre' }, pieces());
    case 'rich_text_list': return el(e.style === 'ordered' ? 'ol' : 'ul', {}, e.elements.map((i) => el('li', {}, i.elements.map((p) => piece(p, ctx)))));
    default: return el('div', { class: 'pre' }, pieces());
  }
}

function piece(p, ctx) {
  const node = (() => {
    switch (p.type) {
      // What is typed into the composer is stored as one text, so its markup is read here.
      case 'text': return p.style?.code ? el('code', {}, p.text) : el('span', {}, typed(p.text, ctx));
      case 'link': return link(p.url, p.text, ctx);
      case 'emoji': return el('span', {}, emojiOf(p.name));
      case 'user': return el('span', { class: 'mention' }, '@' + (ctx.userName(p.user_id) || p.user_id));
      case 'channel': return el('span', { class: 'mention' }, '#' + (ctx.channelName(p.channel_id) || p.channel_id));
      case 'usergroup': return el('span', { class: 'mention' }, '@' + (ctx.groupName(p.usergroup_id) || p.usergroup_id));
      case 'broadcast': return el('span', { class: 'mention' }, '@' + p.range);
      default: return el('span', {}, p.fallback || '');
    }
  })();
  const style = p.style || {};
  const wrap = (on, tag, inner) => (on ? el(tag, {}, inner) : inner);
  return wrap(style.strike, 's', wrap(style.italic, 'i', wrap(style.bold, 'b', node)));
}

function typed(text, ctx) {
  const marked = text.replaceAll('&', '&amp;').replace(/<(?!@[A-Z0-9]+>)/g, '&lt;').replace(/(?<!<@[A-Z0-9]+)>/g, '&gt;')
    .replace(/https?:\/\/[^\s<>`]+/g, (url) => `<${url}>`);
  return mrkdwn(marked, ctx);
}

// ---- Attachments and files ----------------------------------------------------------------------

export function attachment(a, ctx) {
  const title = a.title && el('div', { class: 'title' }, a.title_link ? link(a.title_link, withEmoji(unescape(a.title)), ctx) : inline(a.title, ctx));
  const box = el('div', { class: 'attachment' },
    a.pretext && el('div', {}, mrkdwn(a.pretext, ctx)),
    a.author_name && el('div', { class: 'footer' }, a.author_name),
    title,
    a.text && el('div', {}, mrkdwn(a.text, ctx)),
    a.fields && el('div', { class: 'fields' }, a.fields.map((f) => el('div', {}, el('b', {}, unescape(f.title ?? '')), el('div', {}, mrkdwn(f.value, ctx))))),
    a.blocks && blocks(a.blocks, ctx),
    !title && !a.text && !a.blocks && !a.fields && !a.pretext && el('div', {}, mrkdwn(a.fallback, ctx)),
    a.actions && el('div', { class: 'actions' }, a.actions.map((x) => /^https?:/.test(x.url || '') && el('a', { class: 'btn', href: x.url, target: '_blank', rel: 'noopener noreferrer' }, withEmoji(unescape(String(x.text ?? '')))))),
    a.footer && el('div', { class: 'footer' }, a.footer));
  if (/^[0-9a-f]{3,8}$/i.test(a.color || '')) box.style.setProperty('--bar', '#' + a.color);
  return box;
}

export function file(f) {
  const shown = el('pre', { testid: 'file-text' }, '…');
  const box = el('details', { class: 'file', testid: `file-${f.name}` },
    el('summary', {}, icon('file'), el('span', {}, f.title || f.name), el('small', {}, `${f.size} bytes`)), shown);
  box.addEventListener('toggle', async () => {
    if (box.open) shown.textContent = await (await fetch(`/file/${encodeURIComponent(f.id)}`)).text();
  }, { once: true });
  return box;
}
