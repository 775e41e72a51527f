// A wall of photos: only what is on the screen, and one screen around it, is in the page. The ids of all photos
// and the groups are fetched once: as properties they would be sent again with every change of one, and watched
// by Vue one by one.
const HEAD = 44, GAP = 8, CAPTION = 40, PAGE = 100;
const HELD = 1000;  // milliseconds

export default {
  template: `
    <div class="fm-wall" :class="{acts}" ref="box" tabindex="0" role="grid" :aria-label="label" :aria-rowcount="lines.length"
         :aria-activedescendant="ids.length ? 'fm-tile-' + focus : null"
         @scroll.passive="look" @keydown="key" @take="takeKeys">
      <div v-if="!total" class="fm-none" role="row"><div role="gridcell">{{ none }}</div></div>
      <div class="fm-space" :style="{height: height + 'px'}" role="presentation">
        <template v-for="line in shown" :key="line.key">
          <div v-if="line.head" class="fm-head" role="row" :style="{top: line.top + 'px'}">
            <div role="gridcell"><strong>{{ line.name }}</strong> <span>{{ line.count.toLocaleString(language) }}</span>
              <button type="button" tabindex="-1" @click="chooseGroup(line)"
                      :aria-label="words.all_of.replace('{group}', line.name)">{{ words.all }}</button></div>
          </div>
          <div v-else role="row" class="fm-line" :style="{top: line.top + 'px'}">
            <div v-for="at in line.items" :key="at" :id="'fm-tile-' + at" role="gridcell" class="fm-tile" :data-id="tile(at).id"
                 :class="[tile(at).state, {focus: at === focus, chosen: chosen.has(ids[at])}]"
                 :style="{width: side + 'px'}" :aria-selected="chosen.has(ids[at]) ? 'true' : 'false'"
                 :draggable="drag" @dragstart="start($event, at)" @click="click($event, at)" @dblclick="zoom(at)">
              <img v-if="tile(at).id" :src="'/thumb/' + tile(at).id + '.jpg'" :alt="alt(at)" decoding="async"
                   :style="{height: side + 'px', filter: light}" @error="gone($event)">
              <div v-else class="fm-wait" :style="{height: side + 'px'}"></div>
              <div class="fm-caption" :title="tile(at).file"><span class="fm-mark">{{ mark(at) }}</span>
                <span class="fm-name">{{ tile(at).note || tile(at).name || '' }}</span>
                <span v-if="tile(at).score" class="fm-score">{{ Math.round(100 * tile(at).score) }} %</span></div>
            </div>
          </div>
        </template>
      </div>
    </div>`,
  props: {wall: String, total: Number, side_wanted: Number, brightness: Number, acts: Boolean,
          drag: Boolean, label: String, none: String, field: String, words: Object},
  data() {
    return {ids: [], groups: [], tiles: {}, asked: {}, top: 0, seen: 800, columns: 4, side: 160, focus: 0, anchor: 0,
            chosen: new Set(), version: 0, language: document.documentElement.lang};
  },
  computed: {
    light() { return this.brightness && this.brightness !== 1 ? `brightness(${this.brightness})` : 'none'; },
    lines() {
      const lines = [];
      let top = 0, first = 0;
      for (const group of this.groups) {
        lines.push({head: true, key: 'h' + first, name: group.name, count: group.count, first, top, size: HEAD});
        top += HEAD;
        for (let at = first; at < first + group.count; at += this.columns) {
          const items = [];
          for (let i = at; i < Math.min(at + this.columns, first + group.count); i++) items.push(i);
          lines.push({head: false, key: 'l' + at, items, top, size: this.side + CAPTION + GAP});
          top += this.side + CAPTION + GAP;
        }
        first += group.count;
      }
      return lines;
    },
    height() { const last = this.lines[this.lines.length - 1]; return last ? last.top + last.size : 0; },
    // Numbers, so that nothing is drawn again until another line comes in.
    from() { return this.lineAt(this.top - this.seen); },
    to() { return this.lineAt(this.top + 2 * this.seen); },
    shown() { return this.lines.slice(this.from, this.to + 1); },
  },
  watch: {
    wall() { this.read(); },
    shown() { this.load(); },
    side_wanted() { this.measure(); },
  },
  mounted() {
    this.watcher = new ResizeObserver(() => this.measure());
    this.watcher.observe(this.$refs.box);
    this.read();
    this.listeners = [['keydown', this.typed], ['focusin', this.hold], ['keydown', this.release, true],
                      ['pointerdown', this.release, true]];
    for (const each of this.listeners) document.addEventListener(...each);
  },
  unmounted() {
    this.watcher.disconnect();
    for (const each of this.listeners) document.removeEventListener(...each);
  },
  methods: {
    // Show another wall from its top; the keys are for it, unless someone is typing.
    async read() {
      const wall = this.wall;
      Object.assign(this, {ids: [], groups: [], tiles: {}, asked: {}, chosen: new Set(), focus: 0, anchor: 0, top: 0});
      this.$refs.box.scrollTop = 0;
      if (this.acts && !document.activeElement?.matches('input:not([readonly]), textarea')) this.takeKeys();
      const found = await this.fetchWall(wall);
      if (!found || wall !== this.wall || !this.$refs.box) return;
      this.ids = Object.freeze(found.ids);
      this.groups = Object.freeze(found.groups.map(Object.freeze));
      this.measure();
      this.tell();
    },
    async fetchWall(wall) {
      try {
        const answer = wall && await fetch(`/wall/${wall}`);
        return answer?.ok ? await answer.json() : null;
      } catch (error) { return null; }  // the page is being left
    },
    takeKeys() {
      this.held = performance.now() + HELD;
      this.$refs.box.focus({preventScroll: true});
    },
    // Quasar gives the focus back to a menu's button when the menu has faded out, some time after the choice.
    hold(event) {
      const own = event.target === this.$refs.box || event.target.closest('.q-menu, .q-dialog');
      if (!own && performance.now() < this.held) this.$refs.box.focus({preventScroll: true});
    },
    measure() {
      const box = this.$refs.box, wide = box.clientWidth - 4;
      const wanted = Math.min(this.side_wanted || 168, Math.max(96, wide / 2 - GAP));
      this.columns = Math.max(1, Math.floor((wide + GAP) / (wanted + GAP)));
      this.side = Math.floor((wide + GAP) / this.columns) - GAP;
      this.seen = box.clientHeight;
    },
    look() {
      if (this.waiting) return;
      this.waiting = requestAnimationFrame(() => { this.waiting = null; this.top = this.$refs.box.scrollTop; });
    },
    lineAt(y) {
      let low = 0, high = this.lines.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (this.lines[middle].top <= y) low = middle; else high = middle - 1;
      }
      return low;
    },
    tile(at) { return this.tiles[at] || {}; },
    alt(at) { const t = this.tile(at); return `${t.name || t.note || this.words.not_named}, ${t.file}`; },
    mark(at) { return {person: '✓', unknown: '?', refused: '✕', given: ''}[this.tile(at).state] || ''; },
    gone(event) { event.target.classList.add('gone'); },
    // Tiles come in pages; one page is asked for once, and again when the server says that it has changed.
    load() {
      clearTimeout(this.soon);
      this.soon = setTimeout(() => {
        const items = this.shown.filter(line => !line.head).flatMap(line => line.items);
        for (const page of new Set(items.map(at => Math.floor(at / PAGE)))) this.page(page);
      }, 40);
    },
    page(number) {
      if (this.asked[number]?.version !== this.version)
        this.asked[number] = {version: this.version, tiles: this.fetchPage(number)};
      return this.asked[number].tiles;
    },
    async fetchPage(number) {
      const wall = this.wall, start = number * PAGE;
      try {
        const answer = await fetch(`/wall/${wall}/tiles?start=${start}&count=${PAGE}`);
        if (!answer.ok || wall !== this.wall) return;
        (await answer.json()).forEach((tile, i) => { this.tiles[start + i] = Object.freeze(tile); });
      } catch (error) { delete this.asked[number]; }
    },
    fresh() { this.version++; this.load(); },
    choose(ids) { this.chosen = new Set(ids); this.tell(); },
    clear() { this.chosen = new Set(); this.tell(); },
    // Ask the server for an action, and go on at once: a fast next key must not meet the photo before.
    act(act, name = '') {
      const ids = this.meant(), at = this.tile(this.focus);
      if (/^number/.test(act) && !(Number(act.slice(6)) <= at.answers)) return;
      if (!ids.length && !['undo', 'redo'].includes(act)) return;
      this.$emit('act', {act, name, ids, focus: this.ids[this.focus] ?? null});
      if (act === 'zoom') return;
      if (['undo', 'redo'].includes(act)) { this.clear(); return; }
      let next = this.focus + 1;  // after an event or another group: the first photo behind it
      while (next < this.ids.length && this.chosen.has(this.ids[next])) next++;
      this.chosen = new Set();
      this.move(next - this.focus, false);
    },
    // A person moves the focus.
    release(event) { if (event.type === 'pointerdown' || ['Tab', '/', 'n', 'z'].includes(event.key)) this.held = 0; },
    // Enter in the field for another name: the name is for the wall, and so is the next key.
    typed(event) {
      if (!this.field || event.key !== 'Enter' || event.isComposing || !event.target.matches(this.field)) return;
      const input = event.target, name = input.value;
      if (!name.trim()) return;
      input.value = '';
      input.dispatchEvent(new Event('input', {bubbles: true}));
      this.act('call', name);
      this.takeKeys();
      event.preventDefault();
    },
    // What is chosen; without a choice the photo in focus.
    meant() { return this.chosen.size ? [...this.chosen] : this.ids.slice(this.focus, this.focus + 1); },
    tell() { this.$emit('look', {id: this.ids[this.focus] ?? null, chosen: [...this.chosen]}); },
    click(event, at) {
      this.takeKeys();
      const id = this.ids[at];
      if (event.shiftKey) {
        const [a, b] = [Math.min(this.anchor, at), Math.max(this.anchor, at)];
        this.chooseRange(a, b);
      } else if (event.ctrlKey || event.metaKey) { this.toggle(id); this.anchor = at; }
      else { if (!this.acts) { this.chosen = new Set([id]); } this.anchor = at; }
      this.focus = at;
      this.tell();
    },
    toggle(id) { this.chosen.has(id) ? this.chosen.delete(id) : this.chosen.add(id); },
    chooseRange(from, to) {
      this.chosen = new Set([...this.chosen, ...this.ids.slice(from, to + 1)]);
      this.tell();
    },
    chooseGroupInFocus() {
      const head = this.lines.findLast(each => each.head && each.first <= this.focus);
      if (head) this.chooseGroup(head);
    },
    chooseGroup(line) { this.chooseRange(line.first, line.first + line.count - 1); this.takeKeys(); },
    start(event, at) {
      if (!this.chosen.has(this.ids[at])) { this.chosen = new Set([this.ids[at]]); this.tell(); }
      event.dataTransfer.setData('text/plain', [...this.chosen].join(','));
      event.dataTransfer.effectAllowed = 'move';
    },
    zoom(at) { this.focus = at; this.tell(); this.$emit('act', {act: 'zoom', name: '', ids: [], focus: this.ids[at]}); },
    move(by, extend) {
      const to = Math.max(0, Math.min(this.ids.length - 1, this.focus + by));
      if (extend) this.chooseRange(Math.min(this.focus, to), Math.max(this.focus, to));
      this.focus = this.anchor = to;
      const line = this.lines.find(each => !each.head && each.items[0] <= to && to <= each.items[each.items.length - 1]);
      const box = this.$refs.box;
      if (line && line.top < box.scrollTop + HEAD) box.scrollTop = line.top - HEAD;
      if (line && line.top + line.size > box.scrollTop + box.clientHeight)
        box.scrollTop = line.top + line.size - box.clientHeight;
      this.tell();
    },
    key(event) {
      const steps = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns,
                     PageDown: this.columns * 4, PageUp: -this.columns * 4, Home: -this.total, End: this.total};
      if (event.target !== this.$refs.box || event.altKey || !this.ids.length) return;
      if (event.key in steps) this.move(steps[event.key], event.shiftKey);
      else if (event.key === ' ' || event.key === 'x') { this.toggle(this.ids[this.focus]); this.tell(); }
      else if (event.key === 'Escape') this.clear();
      else if (event.key === 'e' && !event.ctrlKey && !event.metaKey) this.chooseGroupInFocus();
      else if ((event.ctrlKey || event.metaKey) && event.key === 'a') this.chooseRange(0, this.ids.length - 1);
      else if ((event.ctrlKey || event.metaKey) && ['z', 'y'].includes(event.key))
        this.act(event.key === 'z' ? 'undo' : 'redo');
      else if (event.ctrlKey || event.metaKey || !this.acts) return;
      else if (event.key === '/' || event.key === 'n') document.querySelector(this.field)?.focus();
      else {
        const acts = {Enter: 'accept', a: 'accept', u: 'unknown', b: 'blank', z: 'zoom'};
        const act = acts[event.key] || (/^[1-5]$/.test(event.key) ? 'number' + event.key : null);
        if (!act) return;
        this.act(act);
      }
      event.preventDefault();
    },
  },
};
