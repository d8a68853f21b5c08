//! `sae compare`: two models, by their weights and by what fires on the same rows.

mod page;

use crate::failure::Failure;
use crate::labels::{self, LabelsArg};
use crate::model::ModelArgs;
use crate::progress::Steps;
use crate::rows::RowsFile;
use crate::style::{Style, count, fit};
use page::Page;
use sae::analysis::{
    Best, Correlation, Cosines, Matching, Neighbour, Vectors, sae_match_with, shared_fraction_with,
    wmppc,
};
use sae::monitor::{Accumulator, Collect};
use sae::{Error, Features, Labels, Rows, Sae, Scratch};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  sae compare gemma-scope/layer_12/width_16k/.../params.npz gemma-scope/layer_12/width_65k/.../params.npz
  sae compare A B --rows rows.npy --labels a.jsonl.gz
  sae compare A B --features 3,17,900
  sae compare A B --json | jq .pw_mcc.mean

What is measured:
  nearest     for every feature the decoder vector of the other model with the largest cosine; a
              feature is split if two or more are above the limit
  PW-MCC      mean |cosine| of the best one-to-one matching of decoder vectors
  SAE Match   mean squared distance of the best matching of encoder and decoder vectors, with
              thresholds folded
  shared      features that the matchings of decoder and of encoder vectors agree on, with both
              cosines above the limit
  wMPPC       with --rows: mean of the largest correlation with any feature of the other model,
              weighted by the sum of the feature's values

Models of another width than each other can be compared by rows alone: --rows and --other-rows.";

/// Compare two models: nearest features, matchings, correlations over the same rows.
///
/// One copy of both decoders is held, and two more of both while SAE Match is sought, and of both
/// encoders; and two bytes for each pair of features, twice: 2.2 GB for two models of 2304 by
/// 16,384. More pairs than of 16,384 by 16,384 features are matched only if `--matching always` says
/// so: it can take long.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// The checkpoint to compare with
    #[arg(value_name = "OTHER")]
    other: PathBuf,

    /// Give what OTHER does not say, as `--set` does for PATH; can be repeated
    #[arg(long = "other-set", value_name = "KEY=VALUE", value_parser = crate::model::setting)]
    other_set: Vec<(String, String)>,

    /// Activation rows that both models read: npy, float16, float32 or float64
    #[arg(long, value_name = "ROWS.npy")]
    rows: Option<PathBuf>,

    /// The same rows where OTHER reads them, if that is another place: as many as ROWS.npy has
    #[arg(long, value_name = "ROWS.npy", requires = "rows")]
    other_rows: Option<PathBuf>,

    /// Features of PATH to list [default: the best and the worst]
    #[arg(short, long, value_name = "I,J,...", value_delimiter = ',')]
    features: Vec<u32>,

    /// Features to list at each end
    #[arg(long, value_name = "N", default_value_t = 8)]
    top: usize,

    /// Cosine above which two features are near
    #[arg(long, value_name = "COSINE", default_value_t = 0.7, value_parser = limit)]
    limit: f64,

    /// Whether to match features one to one
    #[arg(long, value_enum, default_value_t = When::Auto)]
    matching: When,

    /// Features of each model that are correlated, the most active first: as many times as many
    /// sums are held
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=65536))]
    correlate: u32,

    #[command(flatten)]
    labels: LabelsArg,

    /// What the features of OTHER mean, as `--labels` does for PATH
    #[arg(long, value_name = "FILE")]
    other_labels: Option<PathBuf>,

    /// Print JSON: all of it, for every feature of PATH
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum When {
    /// Up to 16,384 by 16,384 features
    Auto,
    /// Whatever it takes
    Always,
    /// Never
    Never,
}

/// Pairs of features up to which a matching is made unasked.
const MATCHED: u64 = 1 << 28;
/// Rows encoded at a time, at least.
const BATCH: usize = 64;

fn limit(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (-1.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a number from -1 to 1".into()),
    }
}

pub(crate) fn run(args: &Args, style: Style, out: &mut impl Write) -> Result<(), Failure> {
    let a = args.model.open()?;
    let b = args.model.open_other(&args.other, &args.other_set)?;
    let names = [
        args.labels.open(a.d_sae())?,
        labels::read(args.other_labels.as_deref(), b.d_sae())?,
    ];
    if let Some(&feature) = args.features.iter().find(|&&f| f as usize >= a.d_sae()) {
        return Err(Error::FeatureOutOfRange {
            feature: feature.into(),
            d_sae: a.d_sae() as u64,
        }
        .in_file(args.model.path.display().to_string())
        .into());
    }
    let mut found = Found::default();
    if a.d_out() == b.d_out() {
        found.by_weights(args, &a, &b)?;
    } else if args.rows.is_none() {
        return Err(Error::Length {
            what: "values per decoder vector (rows could be compared all the same: --rows)",
            expected: a.d_out() as u64,
            found: b.d_out() as u64,
        }
        .in_file(args.other.display().to_string())
        .into());
    } else {
        let (a, b) = (a.d_out(), b.d_out());
        found
            .notes
            .push(format!("the weights are not compared: {a} values and {b}"));
    }
    if let Some(path) = &args.rows {
        found.by_rows(args, path, &a, &b)?;
    }
    let page = Page {
        args,
        models: [&a, &b],
        names: &names,
        found: &found,
    };
    match args.json {
        true => writeln!(out, "{:#}", page.to_json())?,
        false => page.print(style, out)?,
    }
    Ok(())
}

fn cosines<'v>(what: &'static str, a: &'v Vectors, b: &'v Vectors) -> Result<Cosines<'v>, Error> {
    let mut steps = Steps::new(what);
    Cosines::new(a, b, &mut |done, all| steps.at(done, all))
}

/// What the nearest vectors say about one side.
struct Near {
    lists: Vec<Vec<Neighbour>>,
    mean: f64,
    median: f64,
    above: usize,
    split: usize,
}

impl Near {
    fn new(lists: Vec<Vec<Neighbour>>, limit: f64) -> Self {
        let above = |place: usize| {
            let cosines = lists.iter().filter_map(|list| list.get(place));
            cosines.filter(|near| near.cosine > limit).count()
        };
        let mut cosines: Vec<f64> = lists
            .iter()
            .filter_map(|list| Some(list.first()?.cosine))
            .collect();
        cosines.sort_by(f64::total_cmp);
        let count = cosines.len().max(1) as f64;
        Near {
            mean: cosines.iter().sum::<f64>() / count,
            median: cosines.get(cosines.len() / 2).copied().unwrap_or(0.0),
            above: above(0),
            split: above(1),
            lists,
        }
    }

    fn share(&self, count: usize) -> f64 {
        count as f64 / self.lists.len().max(1) as f64
    }

    fn to_json(&self) -> Value {
        json!({
            "features": self.lists.len(),
            "mean": self.mean,
            "median": self.median,
            "above": self.above,
            "split": self.split,
        })
    }
}

/// What the rows say.
struct Corpus {
    rows: u64,
    skipped: u64,
    /// Features of each side that are correlated, of those that fired.
    correlated: [(usize, usize); 2],
    wmppc: [f64; 2],
    /// The best partners of PATH's features, ascending.
    best: Vec<Best>,
}

#[derive(Default)]
struct Found {
    near: Option<[Near; 2]>,
    matching: Option<Matching>,
    distance: Option<f64>,
    shared: Option<(f64, usize)>,
    corpus: Option<Corpus>,
    notes: Vec<String>,
}

impl Found {
    fn by_weights(&mut self, args: &Args, a: &Sae<'_>, b: &Sae<'_>) -> Result<(), Failure> {
        let (va, vb) = (Vectors::unit_decoder(a)?, Vectors::unit_decoder(b)?);
        let decoders = cosines("comparing decoder vectors", &va, &vb)?;
        let mut steps = Steps::new("nearest decoder vectors");
        let near = decoders.nearest(2, &mut |done, all| steps.at(done, all))?;
        drop(steps);
        self.near = Some(near.map(|lists| Near::new(lists, args.limit)));
        let pairs = a.d_sae() as u64 * b.d_sae() as u64;
        match args.matching {
            When::Never => return Ok(()),
            When::Auto if pairs > MATCHED => {
                self.notes.push(format!(
                    "not matched one to one: {} by {} features (--matching always does it)",
                    count(a.d_sae() as u64),
                    count(b.d_sae() as u64)
                ));
                return Ok(());
            }
            _ => {}
        }
        let mut steps = Steps::new("matching decoder vectors");
        self.matching = Some(decoders.pw_mcc(&mut |done, all| steps.at(done, all))?);
        drop(steps);
        if a.d_in() != b.d_in() {
            let (a, b) = (a.d_in(), b.d_in());
            self.notes.push(format!(
                "encoders are not compared: {a} values and {b} per row"
            ));
            return Ok(());
        }
        let (ea, eb) = (Vectors::unit_encoder(a)?, Vectors::unit_encoder(b)?);
        let encoders = cosines("comparing encoder vectors", &ea, &eb)?;
        let mut steps = Steps::new("matching encoder and decoder vectors");
        let tell = &mut |done, all| steps.at(done, all);
        let shared = shared_fraction_with(&encoders, &decoders, args.limit, tell)?;
        self.shared = Some((shared.0, shared.1.len()));
        drop(steps);
        let mut steps = Steps::new("matching folded vectors");
        let tell = &mut |done, all| steps.at(done, all);
        match sae_match_with(a, b, &encoders, &decoders, tell) {
            Ok(matched) => self.distance = Some(matched.mean),
            // A threshold of 0 cannot be folded; the rest can be told all the same.
            Err(error @ Error::BadValue { .. }) => {
                self.notes
                    .push(format!("SAE Match is not defined: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn by_rows(
        &mut self,
        args: &Args,
        path: &Path,
        a: &Sae<'_>,
        b: &Sae<'_>,
    ) -> Result<(), Failure> {
        let first = RowsFile::open(path, a.d_in())?;
        let other = args.other_rows.as_deref().unwrap_or(path);
        let second = RowsFile::open(other, b.d_in())?;
        let (first, second) = (first.rows()?, second.rows()?);
        if first.rows() != second.rows() {
            return Err(Error::Length {
                what: "rows, as many as the other file has",
                expected: first.rows() as u64,
                found: second.rows() as u64,
            }
            .in_file(other.display().to_string())
            .into());
        }
        let mut sides = [Side::new(a, first)?, Side::new(b, second)?];
        let mut all = Vec::new();
        for side in &sides {
            all.push(Accumulator::new(Collect::all(side.sae))?);
        }
        each_batch(&mut sides, "encoding", |at, features| {
            let statistics = all.get_mut(at);
            statistics.map_or(Ok(()), |statistics| statistics.add_all(features, &[]))
        })?;
        let most_active = |statistics: &Accumulator| {
            let fired = statistics.summaries().filter(|one| one.fired > 0);
            let mut fired: Vec<(f64, u32)> =
                fired.map(|one| (one.mean.abs(), one.feature)).collect();
            fired.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1)));
            let total = fired.len();
            fired.truncate(args.correlate as usize);
            let kept: Vec<u32> = fired.into_iter().map(|one| one.1).collect();
            (kept, total)
        };
        let chosen: Vec<(Vec<u32>, usize)> = all.iter().map(most_active).collect();
        let [(first, fired), (second, other_fired)] = &chosen[..] else {
            return Ok(());
        };
        let mut correlation = Correlation::new(first, second)?;
        let mut held = Features::new();
        each_batch(&mut sides, "correlating", |at, features| {
            match at {
                0 => held.clone_from(features),
                _ => held
                    .iter()
                    .zip(features.iter())
                    .for_each(|(x, y)| correlation.add(x, y)),
            }
            Ok(())
        })?;
        let (best, back) = (correlation.best(), correlation.best_of_second());
        let (rows, skipped) = correlation.rows();
        self.corpus = Some(Corpus {
            rows,
            skipped,
            correlated: [(first.len(), *fired), (second.len(), *other_fired)],
            wmppc: [
                wmppc(std::slice::from_ref(&best))?,
                wmppc(std::slice::from_ref(&back))?,
            ],
            best,
        });
        Ok(())
    }
}

/// A model at its rows.
struct Side<'s> {
    sae: &'s Sae<'s>,
    rows: Rows<'s>,
    scratch: Scratch<'static>,
    features: Features,
}

impl<'s> Side<'s> {
    fn new(sae: &'s Sae<'s>, rows: Rows<'s>) -> Result<Self, Error> {
        Ok(Side {
            sae,
            rows,
            scratch: Scratch::new(sae)?,
            features: Features::new(),
        })
    }
}

/// Encodes the rows of both, batch by batch: first the one, then the other.
fn each_batch(
    sides: &mut [Side<'_>; 2],
    what: &'static str,
    mut take: impl FnMut(usize, &Features) -> Result<(), Error>,
) -> Result<(), Error> {
    let rows = sides[0].rows.rows();
    let batch = sides.iter().map(|side| side.sae.batch_rows());
    let batch = batch.fold(BATCH, usize::max);
    let mut steps = Steps::new(what);
    for first in (0..rows).step_by(batch) {
        for (at, side) in sides.iter_mut().enumerate() {
            let part = side.rows.part(first, batch);
            side.sae
                .encode(part, &mut side.scratch, &mut side.features)?;
            take(at, &side.features)?;
        }
        steps.at((first / batch) + 1, rows.div_ceil(batch));
    }
    Ok(())
}
