"""libsae through ctypes: what a C program does, with its own rows, scratch and features."""

import ctypes as c
import json

import numpy as np


class Error(c.Structure):
    _fields_ = [("code", c.c_int32), ("message_length", c.c_uint32), ("message", c.c_char * 256)]


class Rows(c.Structure):
    _fields_ = [
        ("data", c.c_void_p),
        ("dtype", c.c_int32),
        ("reserved", c.c_uint32),
        ("n_rows", c.c_size_t),
        ("width", c.c_size_t),
        ("stride_bytes", c.c_size_t),
    ]


class View(c.Structure):
    _fields_ = [
        ("row_ends", c.POINTER(c.c_size_t)),
        ("row_status", c.POINTER(c.c_uint8)),
        ("indices", c.POINTER(c.c_uint32)),
        ("values", c.POINTER(c.c_float)),
        ("n_rows", c.c_size_t),
        ("count", c.c_size_t),
    ]


class Options(c.Structure):
    _fields_ = [
        ("struct_size", c.c_uint32),
        ("check", c.c_int32),
        ("strict", c.c_uint32),
        ("reserved", c.c_uint32),
        ("level", c.c_char_p),
        ("settings", c.POINTER(c.c_char_p)),
        ("n_settings", c.c_size_t),
        ("screen", c.c_char_p),
        ("screen_delta_exponent", c.c_uint32),
        ("screen_check", c.c_uint32),
        ("screen_seed", c.c_uint64),
    ]


class Batch(c.Structure):
    _fields_ = [
        ("struct_size", c.c_uint32),
        ("dry_run", c.c_uint32),
        ("rows", c.c_void_p),
        ("inputs", c.c_void_p),
        ("sources", c.c_void_p),
        ("infos", c.c_void_p),
        ("n_infos", c.c_size_t),
        ("outcomes", c.c_void_p),
        ("n_outcomes", c.c_size_t),
        ("changes", c.c_void_p),
        ("n_changes", c.c_size_t),
    ]


class Library:
    def __init__(self, path):
        self.c = c.CDLL(str(path))
        self.c.sae_version.restype = c.c_char_p

    def call(self, name, *arguments):
        error = Error()
        status = getattr(self.c, name)(*arguments, c.byref(error))
        if status:
            raise RuntimeError(f"{name}: {error.message.decode()}")

    def version(self):
        return self.c.sae_version().decode()


class Model:
    """A model with one thread's scratch and features."""

    def __init__(self, library, path, screen=None, share=None):
        self.library, self.path = library, path
        if share is None:
            self.model = c.c_void_p()
            options = Options(struct_size=c.sizeof(Options), screen=(screen or "").encode() or None)
            library.call(
                "sae_model_open", str(path).encode(), c.byref(options), c.byref(self.model)
            )
        else:
            self.model = share.model
        self.scratch = self.features = None

    def prepare(self):
        self.library.call("sae_model_prepare", self.model)
        return self

    def ready(self, n_rows=1):
        self.scratch, self.features = c.c_void_p(), c.c_void_p()
        self.library.call("sae_scratch_create", self.model, c.byref(self.scratch))
        self.library.call(
            "sae_features_create", c.c_size_t(n_rows), c.c_size_t(256 * n_rows), c.byref(self.features)
        )
        return self

    def describe(self):
        size = c.c_size_t()
        self.library.call("sae_model_describe", self.model, None, c.c_size_t(0), c.byref(size))
        text = c.create_string_buffer(size.value)
        self.library.call("sae_model_describe", self.model, text, size, c.byref(size))
        return json.loads(text.value)

    @staticmethod
    def rows(array):
        assert array.dtype == np.float32 and array.flags.c_contiguous
        return Rows(array.ctypes.data, 0, 0, len(array), array.shape[1], 0)

    def encode(self, rows):
        """Rows as made by `rows`."""
        self.library.call(
            "sae_model_encode", self.model, c.byref(rows), self.scratch, self.features
        )

    def encoder(self, rows):
        """The call of the library alone, to be timed; it must have succeeded once."""
        call = self.library.c.sae_model_encode
        arguments = c.byref(rows), self.scratch, self.features, None
        return lambda: call(self.model, *arguments)

    def found(self):
        """(indices, values) of each row of the last call."""
        view = View()
        self.library.call("sae_features_all", self.features, c.byref(view))
        out, start = [], 0
        for row in range(view.n_rows):
            end = view.row_ends[row]
            out.append((list(view.indices[start:end]), list(view.values[start:end])))
            start = end
        return out

    def set_row(self, indices, values):
        """Makes the features one row, to decode."""
        self.library.call("sae_features_clear", self.features)
        indices = np.ascontiguousarray(indices, np.uint32)
        values = np.ascontiguousarray(values, np.float32)
        self.library.call(
            "sae_features_append_row",
            self.features,
            c.c_void_p(indices.ctypes.data),
            c.c_void_p(values.ctypes.data),
            c.c_size_t(len(indices)),
        )

    def decode(self, out):
        self.library.call(
            "sae_model_decode", self.model, self.features, None, self.scratch,
            c.c_void_p(out.ctypes.data), c.c_size_t(out.size),
        )

    def decoder(self, out):
        """The call of the library alone, to be timed."""
        call = self.library.c.sae_model_decode
        arguments = c.c_void_p(out.ctypes.data), c.c_size_t(out.size), None
        return lambda: call(self.model, self.features, None, self.scratch, *arguments)

    def plan(self, text):
        plan, scratch = c.c_void_p(), c.c_void_p()
        texts = (c.c_char_p * 1)(text.encode())
        self.library.call(
            "sae_plan_compile", self.model, texts, c.c_size_t(1), c.c_int32(0), c.byref(plan)
        )
        self.library.call("sae_steer_scratch_create", self.model, plan, c.byref(scratch))
        return plan, scratch

    def steer(self, plan, rows):
        batch = Batch(struct_size=c.sizeof(Batch), rows=c.cast(c.pointer(rows), c.c_void_p))
        self.library.call("sae_model_steer", self.model, plan[0], c.byref(batch), plan[1])

    def steerer(self, plan, rows):
        """The call of the library alone, to be timed."""
        batch = Batch(struct_size=c.sizeof(Batch), rows=c.cast(c.pointer(rows), c.c_void_p))
        call, error = self.library.c.sae_model_steer, None
        return lambda: call(self.model, plan[0], c.byref(batch), plan[1], error)
