//! A weight matrix as it is stored: one vector per feature, in rows or in columns.

use super::Block;
use crate::bytes::Bytes;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::kernels::{Kernels, WeightType};
use crate::tensor::Tensor;
use alloc::string::String;
use alloc::vec::Vec;

/// How the vectors of a matrix lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[features, width]`: the vector of a feature is contiguous.
    Rows,
    /// `[width, features]`: the vector of a feature is a column.
    Columns,
    /// Blocks in rows or columns, and zeros between them.
    Blocks,
}

impl Layout {
    /// `rows`, `columns` or `blocks`.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::Rows => "rows",
            Layout::Columns => "columns",
            Layout::Blocks => "blocks",
        }
    }
}

/// `features` vectors of `width` weights each, read in place from the bytes of a file.
///
/// Invariant, checked by [`Matrix::new`]: every weight lies inside `bytes`.
#[derive(Clone, Debug)]
pub struct Matrix<'a> {
    tensor: String,
    bytes: Bytes<'a>,
    ty: WeightType,
    layout: Layout,
    features: usize,
    width: usize,
    stride_bytes: usize,
    held: Held,
    /// With [`Layout::Blocks`]: what it is made of, by first feature, then first column.
    blocks: Vec<Block<'a>>,
}

/// Where weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// In the bytes of the file, or of the caller.
    Mapped,
    /// In memory: what the file holds had to be inflated, dequantised, narrowed or computed with.
    Decoded,
    /// In memory: a copy with one row per feature.
    Copied,
}

/// Where the vectors of features are in a two-dimensional tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureAxis {
    /// `[features, width]`.
    First,
    /// `[width, features]`.
    Second,
}

impl<'a> Matrix<'a> {
    /// The matrix in `tensor`, read in place whenever its weights are F32, F16 or BF16 and
    /// contiguous along one axis. F64 weights are narrowed to f32 (rounded to nearest) and
    /// tensors with other strides are gathered, both into memory, once.
    ///
    /// # Errors
    /// [`Error::Shape`] if the tensor is not `[features, width]` along those axes,
    /// [`Error::UnsupportedDtype`] if it is not a floating-point one, [`Error::BadValue`] if an
    /// F64 weight is finite but overflows f32.
    pub fn new(
        tensor: &Tensor<'a>,
        axis: FeatureAxis,
        features: usize,
        width: usize,
    ) -> Result<Self, Error> {
        let expected = match axis {
            FeatureAxis::First => [features, width],
            FeatureAxis::Second => [width, features],
        };
        if tensor.shape() != expected {
            return Err(Error::Shape {
                tensor: tensor.name().into(),
                expected: expected.to_vec(),
                found: tensor.shape().to_vec(),
            });
        }
        let (feature_step, width_step) = match (axis, tensor.strides()) {
            (FeatureAxis::First, &[first, second]) => (first, second),
            (_, &[first, second]) => (second, first),
            _ => (0, 0),
        };
        let ty = match tensor.dtype() {
            Dtype::F32 => WeightType::F32,
            Dtype::F16 => WeightType::F16,
            Dtype::BF16 => WeightType::BF16,
            Dtype::F64 => return Self::gathered(tensor, axis, features, width),
            other => {
                return Err(Error::UnsupportedDtype {
                    tensor: tensor.name().into(),
                    found: other.name().into(),
                });
            }
        };
        // A dimension of length one may carry any stride.
        let (layout, stride) = if width_step == 1 || width <= 1 {
            (
                Layout::Rows,
                if features <= 1 { width } else { feature_step },
            )
        } else if feature_step == 1 || features <= 1 {
            (Layout::Columns, width_step)
        } else {
            return Self::gathered(tensor, axis, features, width);
        };
        Ok(Matrix {
            tensor: tensor.name().into(),
            bytes: tensor.bytes().clone(),
            ty,
            layout,
            features,
            width,
            stride_bytes: stride * ty.size(),
            held: match tensor.bytes().is_owned() {
                true => Held::Decoded,
                false => Held::Mapped,
            },
            blocks: Vec::new(),
        })
    }

    /// Rows of f32 in memory, from a tensor whose elements cannot be used in place: one pass, with
    /// no memory beyond the result.
    fn gathered(
        tensor: &Tensor<'a>,
        axis: FeatureAxis,
        features: usize,
        width: usize,
    ) -> Result<Self, Error> {
        // So many rows are filled together: reading along columns, a line of the file serves all.
        const ROWS: usize = 64;
        if !tensor.dtype().is_float() {
            return Err(Error::UnsupportedDtype {
                tensor: tensor.name().into(),
                found: tensor.dtype().name().into(),
            });
        }
        let bytes = features.saturating_mul(width).saturating_mul(4);
        let mut rows = zero_bytes(bytes, "narrowed weights")?;
        let stride = width * 4;
        for (block, rows) in rows.chunks_mut((ROWS * stride).max(1)).enumerate() {
            for column in 0..width {
                for (i, row) in rows.chunks_exact_mut(stride).enumerate() {
                    let feature = block * ROWS + i;
                    let (value, at) = match axis {
                        FeatureAxis::First => {
                            (tensor.element(feature, column), feature * width + column)
                        }
                        FeatureAxis::Second => {
                            (tensor.element(column, feature), column * features + feature)
                        }
                    };
                    let narrow = value as f32;
                    if value.is_finite() && !narrow.is_finite() {
                        return Err(Error::BadValue {
                            tensor: tensor.name().into(),
                            index: at as u64,
                            found: value,
                        });
                    }
                    if let Some(to) = row.get_mut(column * 4..column * 4 + 4) {
                        to.copy_from_slice(&narrow.to_le_bytes());
                    }
                }
            }
        }
        let ty = WeightType::F32;
        Ok(Self::from_rows(tensor.name(), rows, ty, features, width))
    }

    /// Rows in memory of their own, made from what a file holds.
    pub(crate) fn from_rows(
        tensor: &str,
        rows: Vec<u8>,
        ty: WeightType,
        features: usize,
        width: usize,
    ) -> Self {
        Matrix {
            tensor: tensor.into(),
            bytes: Bytes::owned(rows),
            ty,
            layout: Layout::Rows,
            features,
            width,
            stride_bytes: width * ty.size(),
            held: Held::Decoded,
            blocks: Vec::new(),
        }
    }

    /// The first `count` vectors of a plain matrix, in place.
    pub(super) fn shortened(&self, count: usize) -> Self {
        let mut shorter = self.clone();
        shorter.features = count.min(self.features);
        shorter
    }

    /// Copies of these vectors, one row each.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn gather_rows(&self, features: &[u32]) -> Result<Matrix<'static>, Error> {
        let stride = self.width * self.ty.size();
        let bytes = features.len().saturating_mul(stride);
        let mut rows = zero_bytes(bytes, "rows of features")?;
        for (row, &feature) in rows.chunks_exact_mut(stride).zip(features) {
            self.gather(feature as usize, row);
        }
        let (ty, count, width) = (self.ty, features.len(), self.width);
        let copied = Matrix::from_rows(&self.tensor, rows, ty, count, width);
        Ok(Matrix {
            held: Held::Copied,
            ..copied
        })
    }

    /// Vectors of zeros that are neither stored nor read.
    pub(crate) fn empty(tensor: &str, features: usize, width: usize) -> Self {
        Self::made_of(tensor, features, width, WeightType::F32, Vec::new())
    }

    /// The vectors of a range, in place; `None` for blocks.
    pub(crate) fn slice(&self, range: core::ops::Range<usize>) -> Option<Self> {
        let start = match self.layout {
            Layout::Rows => range.start * self.stride_bytes,
            Layout::Columns => range.start * self.ty.size(),
            Layout::Blocks => return None,
        };
        let bytes = self.bytes.slice(start..self.bytes.len())?;
        Some(Matrix {
            bytes,
            features: range.len(),
            ..self.clone()
        })
    }

    /// Blocks that were checked.
    pub(super) fn made_of(
        tensor: &str,
        features: usize,
        width: usize,
        ty: WeightType,
        blocks: Vec<Block<'a>>,
    ) -> Self {
        Matrix {
            tensor: tensor.into(),
            bytes: Bytes::owned(Vec::new()),
            ty,
            layout: Layout::Blocks,
            features,
            width,
            stride_bytes: 0,
            held: {
                let held = blocks.iter().map(|block| block.matrix.held);
                let most = held.max_by_key(|held| *held as u8);
                most.unwrap_or(Held::Mapped)
            },
            blocks,
        }
    }

    /// Name of the tensor in the file.
    pub fn tensor(&self) -> &str {
        &self.tensor
    }

    /// Format of the weights as they are read.
    pub fn weight_type(&self) -> WeightType {
        self.ty
    }

    /// Rows, columns or blocks.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// With [`Layout::Blocks`] the blocks, by first feature, then first column; else none.
    pub fn blocks(&self) -> &[Block<'a>] {
        &self.blocks
    }

    /// Number of vectors.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Weights per vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Bytes between neighbouring rows ([`Layout::Rows`]) or rows of columns.
    pub fn stride_bytes(&self) -> usize {
        self.stride_bytes
    }

    /// Whether the weights are read from the file's bytes rather than from a copy.
    pub fn is_mapped(&self) -> bool {
        self.held == Held::Mapped
    }

    /// Where the weights are; with blocks, of those furthest from the file.
    pub(super) fn held(&self) -> Held {
        self.held
    }

    /// Bytes of all weights.
    pub fn size_bytes(&self) -> usize {
        match self.layout {
            Layout::Rows | Layout::Columns => self.features * self.width * self.ty.size(),
            Layout::Blocks => {
                let sizes = self.blocks.iter().map(|block| block.matrix.size_bytes());
                sizes.sum()
            }
        }
    }

    /// Bytes of the weights that are stored as columns, of blocks too.
    pub(crate) fn column_bytes(&self) -> usize {
        match self.layout {
            Layout::Rows => 0,
            Layout::Columns => self.size_bytes(),
            Layout::Blocks => {
                let sizes = self.blocks.iter().map(|block| block.matrix.column_bytes());
                sizes.sum()
            }
        }
    }

    /// The bytes from the first weight on; none with blocks.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// The bytes of a feature's row, if rows are stored and there is such a feature.
    pub fn row(&self, feature: usize) -> Option<&[u8]> {
        if self.layout != Layout::Rows || feature >= self.features {
            return None;
        }
        let start = feature * self.stride_bytes;
        self.bytes().get(start..start + self.width * self.ty.size())
    }

    /// The bytes from feature `first` on: of its row, or of its column's first weight. None with
    /// blocks.
    pub(crate) fn bytes_from(&self, first: usize) -> &[u8] {
        let step = match self.layout {
            Layout::Rows => self.stride_bytes,
            Layout::Columns => self.ty.size(),
            Layout::Blocks => return &[],
        };
        self.bytes().get(first * step..).unwrap_or(&[])
    }

    /// Writes the vector of a feature, `width` weights, as contiguous bytes. `row` must have room
    /// for exactly them.
    pub(crate) fn gather(&self, feature: usize, row: &mut [u8]) {
        debug_assert_eq!(row.len(), self.width * self.ty.size());
        if let Some(bytes) = self.row(feature) {
            row.copy_from_slice(bytes);
            return;
        }
        let size = self.ty.size();
        if self.layout == Layout::Blocks {
            row.fill(0);
            for block in &self.blocks {
                let columns = block.columns();
                let part = row.get_mut(columns.start * size..columns.end * size);
                if let (true, Some(part)) = (block.features().contains(&feature), part) {
                    block.matrix.gather(feature - block.first_feature, part);
                }
            }
            return;
        }
        let column = self.bytes_from(feature);
        for (j, to) in row.chunks_exact_mut(size).enumerate() {
            let start = j * self.stride_bytes;
            if let Some(from) = column.get(start..start + size) {
                to.copy_from_slice(from);
            }
        }
    }

    /// One weight of a vector, widened.
    pub(crate) fn weight(&self, feature: usize, column: usize) -> f64 {
        let size = self.ty.size();
        let at = match self.layout {
            Layout::Rows => feature * self.stride_bytes + column * size,
            Layout::Columns => column * self.stride_bytes + feature * size,
            Layout::Blocks => {
                let mut blocks = self.blocks.iter();
                let found = blocks.find(|block| {
                    block.features().contains(&feature) && block.columns().contains(&column)
                });
                return found.map_or(0.0, |block| {
                    let (feature, column) =
                        (feature - block.first_feature, column - block.first_column);
                    block.matrix.weight(feature, column)
                });
            }
        };
        self.bytes()
            .get(at..at + size)
            .map_or(0.0, |bytes| widen(self.ty, bytes))
    }

    /// The same matrix with one contiguous row per feature: a copy, in one pass over the weights,
    /// with no memory beyond the result. Of blocks, those in columns are copied.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn to_rows(&self) -> Result<Matrix<'a>, Error> {
        if self.layout == Layout::Blocks {
            let mut blocks = self.blocks.clone();
            for block in &mut blocks {
                if block.matrix.layout == Layout::Columns {
                    block.matrix = block.matrix.to_rows()?;
                }
            }
            let (features, width) = (self.features, self.width);
            return Ok(Self::made_of(
                &self.tensor,
                features,
                width,
                self.ty,
                blocks,
            ));
        }
        let mut rows = zero_bytes(self.size_bytes(), "rows per feature")?;
        self.copy_rows(0, &mut rows);
        let (ty, features, width) = (self.ty, self.features, self.width);
        let copied = Matrix::from_rows(&self.tensor, rows, ty, features, width);
        Ok(Matrix {
            held: Held::Copied,
            ..copied
        })
    }

    /// Writes the vectors of the features from `first` on, one row after the other: as many as
    /// `rows` has room for. One pass over their weights.
    pub(crate) fn copy_rows(&self, first: usize, rows: &mut [u8]) {
        // Square tiles, so that both sides stay in cache.
        const TILE: usize = 64;
        let size = self.ty.size();
        let stride = (self.width * size).max(1);
        if self.layout != Layout::Columns {
            for (i, row) in rows.chunks_exact_mut(stride).enumerate() {
                self.gather(first + i, row);
            }
            return;
        }
        for first_column in (0..self.width).step_by(TILE) {
            for (tile, rows) in rows.chunks_mut(TILE * stride).enumerate() {
                let first = first + tile * TILE;
                for column in first_column..self.width.min(first_column + TILE) {
                    let from = self.bytes_from(first).get(column * self.stride_bytes..);
                    let from = from.unwrap_or(&[]).chunks_exact(size);
                    for (row, weight) in rows.chunks_exact_mut(stride).zip(from) {
                        if let Some(to) = row.get_mut(column * size..(column + 1) * size) {
                            to.copy_from_slice(weight);
                        }
                    }
                }
            }
        }
    }

    /// The norm of every vector: the square root of its sum of squares, in f64, in the lanes and
    /// the tree of the dot product, whatever the layout. One pass over the weights.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn norms(&self) -> Result<Vec<f64>, Error> {
        const TILE: usize = 256;
        let kernels = Kernels::best();
        let mut norms = zeros(self.features, "norms of vectors")?;
        match self.layout {
            Layout::Rows | Layout::Blocks => {
                let mut row = zeros(self.width, "norms of vectors")?;
                let mut bytes = alloc::vec![0; self.width * self.ty.size()];
                for (feature, norm) in norms.iter_mut().enumerate() {
                    self.gather(feature, &mut bytes);
                    kernels.widen(self.ty, &bytes, &mut row);
                    *norm = libm::sqrt(kernels.sum_squares_about(&row, 0.0));
                }
            }
            Layout::Columns => {
                let mut line = [0.0; TILE];
                let mut lanes = zeros(16 * TILE, "norms of vectors")?;
                for (tile, norms) in norms.chunks_mut(TILE).enumerate() {
                    lanes.fill(0.0);
                    for column in 0..self.width {
                        let bytes = self.bytes_from(tile * TILE);
                        let bytes = bytes.get(column * self.stride_bytes..).unwrap_or(&[]);
                        let line = line.get_mut(..norms.len()).unwrap_or(&mut []);
                        kernels.widen(self.ty, bytes, line);
                        let lane = lanes.iter_mut().skip(column % 16 * TILE);
                        for (sum, weight) in lane.zip(line.iter()) {
                            *sum += weight * weight;
                        }
                    }
                    let mut of_one = [0.0; 16];
                    for (i, norm) in norms.iter_mut().enumerate() {
                        for (to, lane) in of_one.iter_mut().zip(lanes.chunks_exact(TILE)) {
                            *to = lane.get(i).copied().unwrap_or(0.0);
                        }
                        *norm = libm::sqrt(kernels.sum(&of_one));
                    }
                }
            }
        }
        Ok(norms)
    }

    /// Looks for a weight that is NaN or infinite.
    ///
    /// # Errors
    /// [`Error::BadValue`] with its position in the tensor, row-major.
    pub(crate) fn check_finite(&self) -> Result<(), Error> {
        let (outer, inner) = match self.layout {
            Layout::Rows => (self.features, self.width),
            Layout::Columns => (self.width, self.features),
            Layout::Blocks => {
                let mut blocks = self.blocks.iter();
                return blocks.try_for_each(|block| block.matrix.check_finite());
            }
        };
        let size = self.ty.size();
        for i in 0..outer {
            let start = i * self.stride_bytes;
            let line = self.bytes().get(start..start + inner * size).unwrap_or(&[]);
            for (j, bytes) in line.chunks_exact(size).enumerate() {
                let found = widen(self.ty, bytes);
                if !found.is_finite() {
                    return Err(Error::BadValue {
                        tensor: self.tensor.clone(),
                        index: (i * inner + j) as u64,
                        found,
                    });
                }
            }
        }
        Ok(())
    }
}

/// So many zero bytes, or an error that says what for.
fn zero_bytes(length: usize, what: &'static str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(length)
        .map_err(|_| Error::OutOfMemory {
            what,
            bytes: length as u64,
        })?;
    bytes.resize(length, 0);
    Ok(bytes)
}

/// So many zeros, or an error that says what for.
fn zeros(length: usize, what: &'static str) -> Result<Vec<f64>, Error> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(length)
        .map_err(|_| Error::OutOfMemory {
            what,
            bytes: length as u64 * 8,
        })?;
    values.resize(length, 0.0);
    Ok(values)
}

/// One weight, widened.
fn widen(ty: WeightType, bytes: &[u8]) -> f64 {
    match (ty, bytes) {
        (WeightType::F32, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
        (WeightType::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f64(),
        (WeightType::BF16, &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f64(),
        _ => 0.0,
    }
}
