//! `sae encode`: rows to sparse features in an npz file.

use crate::failure::Failure;
use crate::labels::{self, LabelsArg};
use crate::model::ModelArgs;
use crate::output;
use crate::progress::{Progress, while_waiting};
use crate::report::Report;
use crate::rows::RowsFile;
use crate::style::{Style, fit};
use sae::container::npy_write::NpzWriter;
use sae::{Dtype, Error, Features, Labels, Rows, Sae, Scratch};
use std::collections::HashMap;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  sae encode CHECKPOINT rows.npy -o features.npz
  sae encode CHECKPOINT rows.npy -o features.npz --decode --set k=64
  sae encode CHECKPOINT rows.npy -o features.npz --labels explanations --top 10

In Python:
  z = np.load('features.npz')
  f = scipy.sparse.csr_matrix((z['values'], z['indices'], z['indptr']), shape=z['shape'])

The file is written under a temporary name and renamed when it is complete; a file of that name is
replaced. The result does not depend on the number of threads or on the level.";

/// Encode activation rows into sparse features.
///
/// The npz file holds the CSR arrays `indptr` (int64), `indices` (uint32), `values` (float32) and
/// `shape` (int64, [rows, d_sae]), and with --decode `recon` (float32, [rows, d_out]). A row with
/// a NaN or an infinity has no features, and its reconstruction is NaN; such rows are reported.
///
/// With --labels, the features that fired in most rows are listed too, with their labels.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// Activation rows: npy, float16, float32 or float64 (rounded to float32); axes after the
    /// first are flattened
    #[arg(value_name = "ROWS.npy")]
    rows: PathBuf,

    /// File to write
    #[arg(short, long, value_name = "OUT.npz")]
    output: PathBuf,

    /// Also decode: adds the array `recon`
    #[arg(long)]
    decode: bool,

    /// First copy the weights into rows per feature, where the file has columns: costs memory
    /// (see `sae inspect`), makes decoding of such files fast
    #[arg(long)]
    prepare: bool,

    #[command(flatten)]
    labels: LabelsArg,

    /// With --labels: how many features to list
    #[arg(long, value_name = "N", default_value_t = 20, requires = "labels")]
    top: usize,

    /// Threads to split the rows over [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

pub(crate) fn run(args: &Args, style: Style, out: &mut impl Write) -> Result<(), Failure> {
    output::check(&args.output, &[&args.model.path, &args.rows])?;
    let mut sae = args.model.open()?;
    let labels = args.labels.open(sae.d_sae())?;
    if args.prepare {
        sae = while_waiting("preparing", || sae.prepare())?;
    }
    let file = RowsFile::open(&args.rows, sae.d_in())?;
    let rows = file.rows()?;
    let mut report = Report::new(&args.rows, file.narrowed);
    let csr = write(args, &sae, rows, &mut report)
        .map_err(|error| error.in_file(args.output.display().to_string()))?;
    if let Some(labels) = &labels {
        csr.list(labels, args.top, style, out)?;
        out.flush()?;
    }
    report.print();
    Ok(())
}

fn write(args: &Args, sae: &Sae<'_>, rows: Rows<'_>, report: &mut Report) -> Result<Csr, Error> {
    let mut npz = NpzWriter::create(&args.output)?;
    let mut csr = Csr::default();
    let mut batches = Batches::new(sae, rows, args)?;
    if args.decode {
        let shape = [rows.rows(), sae.d_out()];
        npz.add_with("recon", Dtype::F32, &shape, |recon| {
            batches.run(|worker| {
                let bytes = bytemuck::cast_slice(worker.decoded());
                recon.write_all(bytes).map_err(|error| Error::Io {
                    operation: "write",
                    message: error.to_string(),
                })?;
                csr.append(&worker.features, report)
            })
        })?;
    } else {
        batches.run(|worker| csr.append(&worker.features, report))?;
    }
    let fired = csr.indices.len();
    let indptr = bytemuck::cast_slice(&csr.indptr);
    npz.add("indptr", Dtype::I64, &[csr.indptr.len()], indptr)?;
    let indices = bytemuck::cast_slice(&csr.indices);
    npz.add("indices", Dtype::U32, &[fired], indices)?;
    let values = bytemuck::cast_slice(&csr.values);
    npz.add("values", Dtype::F32, &[fired], values)?;
    let shape = [rows.rows() as i64, sae.d_sae() as i64];
    npz.add("shape", Dtype::I64, &[2], bytemuck::cast_slice(&shape))?;
    npz.finish()?;
    Ok(csr)
}

/// The features of all rows, as the file stores them.
struct Csr {
    indptr: Vec<i64>,
    indices: Vec<u32>,
    values: Vec<f32>,
}

impl Default for Csr {
    fn default() -> Self {
        Csr {
            indptr: vec![0],
            indices: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl Csr {
    fn append(&mut self, features: &Features, report: &mut Report) -> Result<(), Error> {
        let memory = |_| Error::OutOfMemory {
            what: "features",
            bytes: features.len() as u64 * 8,
        };
        self.indices.try_reserve(features.len()).map_err(memory)?;
        self.values.try_reserve(features.len()).map_err(memory)?;
        let before = self.indices.len();
        self.indices.extend_from_slice(features.indices());
        self.values.extend_from_slice(features.values());
        for (row, end) in features.iter().zip(features.row_ends()) {
            report.add(row.status);
            self.indptr.push((before + end) as i64);
        }
        Ok(())
    }
}

impl Csr {
    /// Prints the features that fired in most rows, with their labels: aligned in a terminal,
    /// tab-separated elsewhere.
    fn list(
        &self,
        labels: &Labels,
        top: usize,
        style: Style,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        let mut fired: HashMap<u32, (usize, f32)> = HashMap::new();
        for (&feature, &value) in self.indices.iter().zip(&self.values) {
            let (rows, highest) = fired.entry(feature).or_insert((0, f32::NEG_INFINITY));
            *rows += 1;
            *highest = highest.max(value);
        }
        let mut fired: Vec<_> = fired.into_iter().collect();
        fired.sort_by_key(|&(feature, (rows, _))| (std::cmp::Reverse(rows), feature));
        fired.truncate(top);
        match style.columns() {
            None => writeln!(out, "feature\trows\thighest\tlabel")?,
            Some(_) => writeln!(out, "{}", style.dim("feature    rows    highest  label"))?,
        }
        for (feature, (rows, highest)) in fired {
            let label = labels::label(labels, feature);
            match style.columns() {
                None => writeln!(out, "{feature}\t{rows}\t{highest}\t{label}")?,
                Some(columns) => writeln!(
                    out,
                    "{} {rows:>7} {highest:>10.4}  {}",
                    style.key(format!("{feature:>7}")),
                    fit(&label, columns.saturating_sub(29).max(20)).trim_end(),
                )?,
            }
        }
        Ok(())
    }
}

/// What one thread works with.
struct Worker {
    scratch: Scratch<'static>,
    features: Features,
    decoded: Vec<f32>,
    d_out: usize,
}

impl Worker {
    /// The reconstructions of the rows that were encoded last.
    fn decoded(&self) -> &[f32] {
        &self.decoded[..self.features.rows() * self.d_out]
    }

    fn encode(&mut self, sae: &Sae<'_>, rows: Rows<'_>) -> Result<(), Error> {
        sae.encode(rows, &mut self.scratch, &mut self.features)?;
        if self.decoded.is_empty() {
            return Ok(());
        }
        let inputs = sae.needs_inputs_to_decode().then_some(rows);
        let decoded = &mut self.decoded[..rows.rows() * self.d_out];
        sae.decode(&self.features, inputs, &mut self.scratch, decoded)
    }
}

/// All rows, in batches over the threads.
struct Batches<'a> {
    sae: &'a Sae<'a>,
    rows: Rows<'a>,
    workers: Vec<Worker>,
    rows_per_batch: usize,
}

impl<'a> Batches<'a> {
    fn new(sae: &'a Sae<'a>, rows: Rows<'a>, args: &Args) -> Result<Self, Error> {
        // At least about 20 ms per batch and thread: long against starting threads, short for the
        // bar. Models that take rows together take as many as pay, shared among the threads.
        let bytes_per_row = sae.description().encoder.bytes.max(1);
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let threads = args.threads.unwrap_or(cores).get();
        let together = sae.batch_rows().min(rows.rows().div_ceil(threads));
        let rows_per_batch = (200_000_000 / bytes_per_row).clamp(1, 256) as usize;
        let rows_per_batch = rows_per_batch.max(together);
        let useful = rows.rows().div_ceil(rows_per_batch).max(1);
        let worker = || {
            let values = if args.decode {
                rows_per_batch * sae.d_out()
            } else {
                0
            };
            Ok(Worker {
                scratch: Scratch::new(sae)?,
                features: Features::new(),
                decoded: vec![0.0; values],
                d_out: sae.d_out(),
            })
        };
        Ok(Batches {
            sae,
            rows,
            workers: (0..threads.min(useful))
                .map(|_| worker())
                .collect::<Result<_, Error>>()?,
            rows_per_batch,
        })
    }

    /// Encodes everything and hands each batch to `take`, in order.
    fn run(&mut self, mut take: impl FnMut(&Worker) -> Result<(), Error>) -> Result<(), Error> {
        let mut progress = Progress::new("encoding", self.rows.rows());
        let mut first = 0;
        while first < self.rows.rows() {
            let parts: Vec<_> = (0..self.workers.len())
                .map(|i| {
                    self.rows
                        .part(first + i * self.rows_per_batch, self.rows_per_batch)
                })
                .collect();
            let workers = self.workers.len();
            let jobs = self.workers.iter_mut().zip(&parts);
            let results: Vec<Result<(), Error>> = match workers {
                1 => jobs
                    .map(|(worker, part)| worker.encode(self.sae, *part))
                    .collect(),
                _ => std::thread::scope(|scope| {
                    let sae = self.sae;
                    let started: Vec<_> = jobs
                        .map(|(worker, part)| scope.spawn(move || worker.encode(sae, *part)))
                        .collect();
                    let join = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
                        Ok(result) => result,
                        Err(panic) => std::panic::resume_unwind(panic),
                    };
                    started.into_iter().map(join).collect()
                }),
            };
            results.into_iter().collect::<Result<(), Error>>()?;
            for (worker, part) in self.workers.iter().zip(&parts) {
                take(worker)?;
                progress.advance(part.rows());
            }
            first += parts.iter().map(Rows::rows).sum::<usize>();
        }
        Ok(())
    }
}
