// libsae in a browser or under Node: the C interface of include/sae.h, in a WebAssembly module
// that imports nothing but the three host functions of a library without std.
//
//     const library = await Library.load(bytesOfLibsaeWasm);
//     const model = library.open(bytesOfWeights, { name: "sae_weights.safetensors", config });
//     const features = model.encode(rows);          // Float32Array, d_in values per row
//     features.row(0);                               // [{ index, value }, ...]
//
// Offsets of struct members below are those of the C header on wasm32: pointers and size_t have
// four bytes.

const PAGE = 65536;
const ERROR_BYTES = 264; // sae_error: code, message_length, message[256]
const ROWS_BYTES = 24; // sae_rows
const VIEW_BYTES = 24; // sae_features_view
const OPTIONS_BYTES = 28; // sae_open_options

/** What a function of the library reported. `code` is a `sae_status`. */
export class SaeError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "SaeError";
    this.code = code;
  }
}

/** The host's side of memory: power-of-two blocks, reused by size. The module's own data ends at
 * `__heap_base`. */
class Heap {
  constructor(memory, base) {
    this.memory = memory;
    this.next = base;
    this.free = new Map();
    this.lent = 0;
  }

  static blockSize(size, alignment) {
    const needed = Math.max(size, alignment, 16);
    // Large blocks in whole pages: doubling a matrix would waste memory.
    return needed >= PAGE ? Math.ceil(needed / PAGE) * PAGE : 2 ** Math.ceil(Math.log2(needed));
  }

  allocate(size, alignment) {
    const block = Heap.blockSize(size, alignment);
    const reusable = this.free.get(block);
    if (reusable?.length) {
      this.lent += block;
      return reusable.pop();
    }
    const align = Math.min(block, PAGE);
    const address = Math.ceil(this.next / align) * align;
    const missing = address + block - this.memory.buffer.byteLength;
    if (missing > 0) {
      try {
        this.memory.grow(Math.ceil(missing / PAGE));
      } catch {
        return 0; // NULL: the library reports SAE_STATUS_OUT_OF_MEMORY
      }
    }
    this.next = address + block;
    this.lent += block;
    return address;
  }

  release(address, size, alignment) {
    const block = Heap.blockSize(size, alignment);
    if (!this.free.has(block)) this.free.set(block, []);
    this.free.get(block).push(address);
    this.lent -= block;
  }
}

export class Library {
  /** Instantiates the module from its bytes (an ArrayBuffer or a typed array). */
  static async load(bytes) {
    let heap;
    let exports;
    const text = (address) => {
      const memory = new Uint8Array(exports.memory.buffer);
      const end = memory.indexOf(0, address);
      return new TextDecoder().decode(memory.slice(address, end));
    };
    const env = {
      sae_host_allocate: (size, alignment) => heap.allocate(size >>> 0, alignment >>> 0),
      sae_host_free: (address, size, alignment) =>
        heap.release(address >>> 0, size >>> 0, alignment >>> 0),
      sae_host_panic: (message) => {
        throw new SaeError(31, text(message));
      },
    };
    const { instance } = await WebAssembly.instantiate(bytes, { env });
    exports = instance.exports;
    heap = new Heap(exports.memory, exports.__heap_base.value);
    return new Library(exports, heap, text);
  }

  constructor(exports, heap, text) {
    this.exports = exports;
    this.heap = heap;
    this.text = text;
  }

  get version() {
    return this.text(this.exports.sae_version());
  }

  /** Names of the instruction sets of this module, from the plainest to the best. */
  get levels() {
    const names = [];
    for (let i = 0, name; (name = this.exports.sae_level_name(i)) !== 0; i++) {
      names.push(this.text(name));
    }
    return names;
  }

  view() {
    return new DataView(this.exports.memory.buffer);
  }

  /** Bytes copied into the module's memory. */
  put(bytes, alignment = 1) {
    const address = this.heap.allocate(Math.max(bytes.byteLength, 1), alignment);
    if (address === 0) throw new SaeError(20, "out of memory");
    new Uint8Array(this.exports.memory.buffer).set(
      new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength),
      address,
    );
    return { address, release: () => this.heap.release(address, Math.max(bytes.byteLength, 1), alignment) };
  }

  putText(text) {
    return this.put(new TextEncoder().encode(`${text}\0`));
  }

  /** Memory for the length of `use`, which gets its address. */
  withMemory(size, use) {
    const address = this.heap.allocate(size, 8);
    if (address === 0) throw new SaeError(20, "out of memory");
    new Uint8Array(this.exports.memory.buffer).fill(0, address, address + size);
    try {
      return use(address);
    } finally {
      this.heap.release(address, size, 8);
    }
  }

  /** Calls a function whose last argument is a `sae_error`. */
  call(name, ...args) {
    return this.withMemory(ERROR_BYTES, (error) => {
      const status = this.exports[name](...args, error);
      if (status !== 0) throw new SaeError(status, this.text(error + 8));
    });
  }

  /** Calls a function that stores a handle through its last argument but one. */
  create(name, ...args) {
    return this.withMemory(4, (out) => {
      this.call(name, ...args, out);
      return this.view().getUint32(out, true);
    });
  }

  /** Opens the bytes of one file. `name` and `config` as in `sae_model_open_memory`; `settings` are
   * "key=value" strings, `level` the instruction set. */
  open(bytes, { name = "", config = null, settings = [], level = null } = {}) {
    const file = this.put(bytes, 16); // used in place until the model is closed
    const kept = [this.putText(name), config === null ? null : this.putText(config)];
    const texts = settings.map((setting) => this.putText(setting));
    const levelText = level === null ? null : this.putText(level);
    const list = this.put(new Uint32Array(texts.map((text) => text.address)), 4);
    try {
      const handle = this.withMemory(OPTIONS_BYTES, (options) => {
        const view = this.view();
        view.setUint32(options, OPTIONS_BYTES, true);
        view.setUint32(options + 16, levelText?.address ?? 0, true);
        view.setUint32(options + 20, texts.length ? list.address : 0, true);
        view.setUint32(options + 24, texts.length, true);
        const [nameText, configText] = kept;
        return this.create(
          "sae_model_open_memory",
          file.address,
          bytes.byteLength,
          nameText.address,
          configText?.address ?? 0,
          options,
        );
      });
      return new Model(this, handle, file);
    } catch (error) {
      file.release();
      throw error;
    } finally {
      for (const text of [...kept, ...texts, levelText, list]) text?.release();
    }
  }
}

/** An open SAE with a scratch of its own. */
export class Model {
  constructor(library, handle, file) {
    this.library = library;
    this.handle = handle;
    this.file = file;
    this.scratch = library.create("sae_scratch_create", handle);
    this.dIn = library.exports.sae_model_d_in(handle);
    this.dSae = library.exports.sae_model_d_sae(handle);
    this.dOut = library.exports.sae_model_d_out(handle);
    this.level = library.text(library.exports.sae_model_level(handle));
  }

  /** What `sae inspect --json` prints, as an object. */
  describe() {
    const { library } = this;
    const size = library.withMemory(4, (out) => {
      library.call("sae_model_describe", this.handle, 0, 0, out);
      return library.view().getUint32(out, true);
    });
    return library.withMemory(size, (buffer) => {
      library.call("sae_model_describe", this.handle, buffer, size, 0);
      return JSON.parse(library.text(buffer));
    });
  }

  /** Encodes rows (Float32Array, d_in values each). */
  encode(rows) {
    const features = new Features(this.library);
    try {
      this.withRows(rows, (address) =>
        this.library.call("sae_model_encode", this.handle, address, this.scratch, features.handle),
      );
    } catch (error) {
      features.destroy();
      throw error;
    }
    return features;
  }

  /** Decodes features; `inputs` are the encoded rows. Returns a Float32Array. */
  decode(features, inputs) {
    const count = features.length * this.dOut;
    return this.library.withMemory(Math.max(count, 1) * 4, (out) =>
      this.withRows(inputs, (rows) => {
        this.library.call(
          "sae_model_decode",
          this.handle,
          features.handle,
          rows,
          this.scratch,
          out,
          count,
        );
        return new Float32Array(this.library.exports.memory.buffer, out, count).slice();
      }),
    );
  }

  withRows(rows, use) {
    const { library } = this;
    const data = library.put(rows, 4);
    try {
      return library.withMemory(ROWS_BYTES, (address) => {
        const view = library.view();
        view.setUint32(address, data.address, true);
        view.setUint32(address + 12, rows.length / this.dIn, true);
        view.setUint32(address + 16, this.dIn, true);
        return use(address);
      });
    } finally {
      data.release();
    }
  }

  close() {
    this.library.exports.sae_scratch_destroy(this.scratch);
    this.library.exports.sae_model_close(this.handle);
    this.file.release();
  }
}

/** The features that fired in a batch of rows. */
export class Features {
  constructor(library) {
    this.library = library;
    this.handle = library.create("sae_features_create", 0, 0);
  }

  /** Number of rows. */
  get length() {
    return this.library.exports.sae_features_n_rows(this.handle);
  }

  /** Copies of the arrays of `sae_features_view`. */
  arrays() {
    const { library } = this;
    return library.withMemory(VIEW_BYTES, (out) => {
      library.call("sae_features_all", this.handle, out);
      const view = library.view();
      const [ends, status, indices, values, rows, count] = [0, 4, 8, 12, 16, 20].map((at) =>
        view.getUint32(out + at, true),
      );
      const { buffer } = library.exports.memory;
      return {
        rowEnds: new Uint32Array(buffer, ends, rows).slice(),
        rowStatus: new Uint8Array(buffer, status, rows).slice(),
        indices: new Uint32Array(buffer, indices, count).slice(),
        values: new Float32Array(buffer, values, count).slice(),
      };
    });
  }

  /** The features of one row, strongest first. */
  row(number) {
    const { rowEnds, indices, values } = this.arrays();
    const found = [];
    for (let i = number === 0 ? 0 : rowEnds[number - 1]; i < rowEnds[number]; i++) {
      found.push({ index: indices[i], value: values[i] });
    }
    return found.sort((a, b) => b.value - a.value);
  }

  destroy() {
    this.library.exports.sae_features_destroy(this.handle);
  }
}
