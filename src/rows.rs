//! Activation rows as the host holds them: strided, in f32, f16 or bf16.

use crate::dtype::Dtype;
use crate::error::Error;

/// A batch of activation rows, `[rows, width]`, of the caller: row `r` starts `r * stride_bytes`
/// bytes after the first. No alignment is needed.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'r> {
    bytes: &'r [u8],
    dtype: Dtype,
    rows: usize,
    width: usize,
    stride_bytes: usize,
}

impl<'r> Rows<'r> {
    /// Contiguous f32 rows.
    ///
    /// # Errors
    /// [`Error::Length`] if `values` is not a whole number of rows.
    pub fn from_f32(values: &'r [f32], width: usize) -> Result<Self, Error> {
        let rows = values.len().checked_div(width).unwrap_or(0);
        if rows * width != values.len() {
            return Err(Error::Length {
                what: "values in rows",
                expected: (rows * width) as u64,
                found: values.len() as u64,
            });
        }
        let bytes = bytemuck::cast_slice(values);
        Self::from_bytes(bytes, Dtype::F32, rows, width, width * 4)
    }

    /// Strided rows of any row format (F32, F16 or BF16).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another dtype or a stride shorter than a row,
    /// [`Error::Length`] if the bytes do not hold all rows.
    pub fn from_bytes(
        bytes: &'r [u8],
        dtype: Dtype,
        rows: usize,
        width: usize,
        stride_bytes: usize,
    ) -> Result<Self, Error> {
        let needed = check_rows(dtype, rows, width, stride_bytes)?;
        if needed > bytes.len() {
            return Err(Error::Length {
                what: "bytes of rows",
                expected: needed as u64,
                found: bytes.len() as u64,
            });
        }
        Ok(Rows {
            bytes,
            dtype,
            rows,
            width,
            stride_bytes,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Format of the values.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The bytes of row `row`, empty if there is no such row.
    pub fn row_bytes(&self, row: usize) -> &'r [u8] {
        if row >= self.rows {
            return &[];
        }
        let start = row * self.stride_bytes;
        self.bytes
            .get(start..start + self.width * self.dtype.size())
            .unwrap_or(&[])
    }

    /// Widens a row to f32, exactly: its first values into all of `to`, 0 beyond them.
    pub fn read(&self, row: usize, to: &mut [f32]) {
        let bytes = self.row_bytes(row);
        let size = self.dtype.size().max(1);
        to.fill(0.0);
        for (to, bytes) in to.iter_mut().zip(bytes.chunks_exact(size)) {
            *to = match (self.dtype, bytes) {
                (Dtype::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f32(),
                (Dtype::BF16, &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f32(),
                (_, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
                _ => 0.0,
            };
        }
    }

    /// The rows `first .. first + count` (clipped to those that exist).
    #[must_use]
    pub fn part(&self, first: usize, count: usize) -> Self {
        let first = first.min(self.rows);
        let rows = count.min(self.rows - first);
        let bytes = self.bytes.get(first * self.stride_bytes..).unwrap_or(&[]);
        Rows {
            bytes,
            rows,
            ..*self
        }
    }
}

/// Bytes that such rows span, after checking dtype and stride.
fn check_rows(dtype: Dtype, rows: usize, width: usize, stride: usize) -> Result<usize, Error> {
    use alloc::string::ToString;
    if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
        return Err(Error::InvalidArgument {
            what: "dtype of rows",
            expected: "F32, F16 or BF16".into(),
            found: dtype.to_string(),
        });
    }
    let overflow = || Error::InvalidArgument {
        what: "rows",
        expected: "a span that fits the address space".into(),
        found: alloc::format!("{rows} rows of {width}, stride {stride}"),
    };
    let row = width.checked_mul(dtype.size()).ok_or_else(overflow)?;
    if rows > 1 && stride < row {
        return Err(Error::InvalidArgument {
            what: "stride of rows in bytes",
            expected: alloc::format!("at least {row}"),
            found: stride.to_string(),
        });
    }
    match rows.checked_sub(1) {
        None => Ok(0),
        Some(last) => last
            .checked_mul(stride)
            .and_then(|start| start.checked_add(row))
            .ok_or_else(overflow),
    }
}
