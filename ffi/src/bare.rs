//! What a library without std gets from its host: memory, and an end after a defect. The host
//! defines the functions below; `ffi/README.md` shows them.
//!
//! Such a library is built without the feature `std` and with `panic = "abort"`.

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{c_char, c_void};
use core::fmt::Write;

// WebAssembly's linker takes names of other modules only where they are said to be imports.
#[cfg_attr(target_family = "wasm", link(wasm_import_module = "env"))]
unsafe extern "C" {
    /// Memory of `size` bytes at a multiple of `alignment`, or NULL.
    fn sae_host_allocate(size: usize, alignment: usize) -> *mut c_void;
    /// Takes memory back; size and alignment are those it was allocated with.
    fn sae_host_free(memory: *mut c_void, size: usize, alignment: usize);
    /// Called once after a defect of the library was noticed, with a message that ends with a zero
    /// byte. Must not return.
    fn sae_host_panic(message: *const c_char) -> !;
}

struct Host;

#[global_allocator]
static HOST: Host = Host;

// SAFETY: the host's functions are an allocator, by the contract above.
unsafe impl GlobalAlloc for Host {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the host's function takes any size and alignment.
        unsafe { sae_host_allocate(layout.size(), layout.align()) }.cast()
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller guarantees that the memory was allocated with this layout.
        unsafe { sae_host_free(memory.cast(), layout.size(), layout.align()) };
    }
}

/// A message of fixed size; what does not fit is left out.
struct Text {
    bytes: [u8; 256],
    length: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            // The last byte stays zero.
            if self.length + 1 < self.bytes.len()
                && let Some(place) = self.bytes.get_mut(self.length)
            {
                *place = byte;
                self.length += 1;
            }
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let mut text = Text {
        bytes: [0; 256],
        length: 0,
    };
    // Writing into a buffer does not fail.
    let _ = write!(text, "{info}");
    // SAFETY: the text ends with a zero byte.
    unsafe { sae_host_panic(text.bytes.as_ptr().cast()) }
}

/// Named by the unwind tables of the prebuilt `core` and `alloc`, and never called: nothing unwinds
/// under `panic = "abort"`.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
