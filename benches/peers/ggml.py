"""ggml's matrix times vector through ctypes on its shared libraries."""

import ctypes as c
from pathlib import Path

import numpy as np

TYPES = {"F16": 1, "Q8_0": 8, "Q4_0": 2}


class InitParams(c.Structure):
    _fields_ = [("mem_size", c.c_size_t), ("mem_buffer", c.c_void_p), ("no_alloc", c.c_bool)]


class Plan(c.Structure):
    _fields_ = [
        ("work_size", c.c_size_t),
        ("work_data", c.c_void_p),
        ("n_threads", c.c_int),
        ("threadpool", c.c_void_p),
        ("abort_callback", c.c_void_p),
        ("abort_callback_data", c.c_void_p),
        ("use_ref", c.c_bool),
    ]


class Ggml:
    def __init__(self, folder):
        folder = Path(folder)
        for name in ["libggml-base.so", "libggml-cpu.so"]:
            found = sorted(folder.rglob(name + "*"))
            if not found:
                raise FileNotFoundError(f"{name} under {folder}")
            library = c.CDLL(str(found[0]), mode=c.RTLD_GLOBAL)
            setattr(self, "base" if "base" in name else "cpu", library)
        base, cpu = self.base, self.cpu
        pointer, number = c.c_void_p, c.c_int64
        base.ggml_init.restype, base.ggml_init.argtypes = pointer, [InitParams]
        base.ggml_free.argtypes = [pointer]
        base.ggml_new_tensor_2d.restype = pointer
        base.ggml_new_tensor_2d.argtypes = [pointer, c.c_int, number, number]
        base.ggml_mul_mat.restype, base.ggml_mul_mat.argtypes = pointer, [pointer] * 3
        base.ggml_new_graph.restype, base.ggml_new_graph.argtypes = pointer, [pointer]
        base.ggml_build_forward_expand.argtypes = [pointer, pointer]
        base.ggml_get_data.restype, base.ggml_get_data.argtypes = pointer, [pointer]
        base.ggml_nbytes.restype, base.ggml_nbytes.argtypes = c.c_size_t, [pointer]
        base.ggml_quantize_chunk.restype = c.c_size_t
        base.ggml_quantize_chunk.argtypes = [c.c_int, pointer, pointer, number, number, number, pointer]
        cpu.ggml_graph_plan.restype = Plan
        cpu.ggml_graph_plan.argtypes = [pointer, c.c_int, pointer]
        cpu.ggml_graph_compute.argtypes = [pointer, c.POINTER(Plan)]
        cpu.ggml_cpu_init()

    def product(self, kind, weights, rows):
        """`weights` f32 [features, d_in]; returns `run(x, threads) -> [rows, features]`."""
        features, d_in = weights.shape
        size = weights.size * 2 + 4 * rows * d_in + rows * features * 8 + (64 << 20)
        context = self.base.ggml_init(InitParams(size, None, False))
        tensor = self.base.ggml_new_tensor_2d(context, TYPES[kind], d_in, features)
        x = self.base.ggml_new_tensor_2d(context, 0, d_in, rows)
        out = self.base.ggml_mul_mat(context, tensor, x)
        graph = self.base.ggml_new_graph(context)
        self.base.ggml_build_forward_expand(graph, out)
        self.base.ggml_quantize_chunk(
            TYPES[kind], weights.ctypes.data, self.base.ggml_get_data(tensor), 0, features, d_in, None
        )
        x_bytes, out_bytes = rows * d_in * 4, rows * features * 4
        x_data, out_data = self.base.ggml_get_data(x), self.base.ggml_get_data(out)
        answer = np.ctypeslib.as_array(
            c.cast(out_data, c.POINTER(c.c_float)), shape=(rows, features)
        )
        assert answer.nbytes == out_bytes

        plans = {}

        def run(values, threads):
            if threads not in plans:
                plan = self.cpu.ggml_graph_plan(graph, threads, None)
                work = c.create_string_buffer(plan.work_size + 64)
                plan.work_data = c.addressof(work) + 63 & ~63
                plans[threads] = plan, work
            c.memmove(x_data, values.ctypes.data, x_bytes)
            self.cpu.ggml_graph_compute(graph, c.byref(plans[threads][0]))
            return answer

        run.close = lambda: self.base.ggml_free(context)
        return run
