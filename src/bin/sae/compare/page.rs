//! What `sae compare` prints.

use super::*;

/// One feature of PATH, and its partners.
struct Line {
    near: Option<Neighbour>,
    matched: Option<(u32, f64)>,
    best: Option<Best>,
}

pub(super) struct Page<'p> {
    pub(super) args: &'p Args,
    pub(super) models: [&'p Sae<'p>; 2],
    pub(super) names: &'p [Option<Labels>; 2],
    pub(super) found: &'p Found,
}

impl Page<'_> {
    fn line(&self, feature: u32) -> Line {
        let found = self.found;
        let near = found.near.as_ref().and_then(|near| {
            let list = near[0].lists.get(feature as usize)?;
            list.first().copied()
        });
        let matched = found.matching.as_ref().and_then(|matching| {
            let pairs = &matching.pairs;
            let at = pairs.binary_search_by_key(&feature, |pair| pair.first);
            let pair = pairs.get(at.ok()?)?;
            Some((pair.second, pair.value))
        });
        let best = found.corpus.as_ref().and_then(|corpus| {
            let at = corpus.best.binary_search_by_key(&feature, |b| b.feature);
            corpus.best.get(at.ok()?).copied()
        });
        Line {
            near,
            matched,
            best,
        }
    }

    fn name(&self, side: usize, feature: u32) -> Option<String> {
        let labels = self.names.get(side)?.as_ref()?;
        Some(labels::label(labels, feature)).filter(|label| !label.is_empty())
    }

    pub(super) fn to_json(&self) -> Value {
        let model = |path: &Path, sae: &Sae<'_>| {
            let about = sae.description();
            json!({
                "path": path.display().to_string(),
                "publisher": about.publisher,
                "architecture": about.architecture,
                "activation": about.activation,
                "d_in": sae.d_in(),
                "d_sae": sae.d_sae(),
                "d_out": sae.d_out(),
                "fingerprint": format!("{:016x}", sae.fingerprint()),
            })
        };
        let found = self.found;
        let pair = |of: Option<(u32, f64)>, what: &str| {
            of.map(|(feature, value)| {
                let mut pair = json!({"feature": feature, what: value});
                if let (Some(label), Some(map)) = (self.name(1, feature), pair.as_object_mut()) {
                    map.insert("label".into(), label.into());
                }
                pair
            })
        };
        let features: Vec<u32> = match self.args.features.is_empty() {
            true => (0..self.models[0].d_sae() as u32).collect(),
            false => self.args.features.clone(),
        };
        let features = features.into_iter().map(|feature| {
            let line = self.line(feature);
            json!({
                "feature": feature,
                "label": self.name(0, feature),
                "nearest": pair(line.near.map(|near| (near.feature, near.cosine)), "cosine"),
                "matched": pair(line.matched, "cosine"),
                "correlated": pair(line.best.map(|best| (best.partner, best.correlation)), "correlation"),
            })
        });
        json!({
            "format": "sae compare",
            "version": 1,
            "model": model(&self.args.model.path, self.models[0]),
            "other": model(&self.args.other, self.models[1]),
            "limit": self.args.limit,
            "nearest": found.near.as_ref().map(|near| json!({
                "model_in_other": near[0].to_json(),
                "other_in_model": near[1].to_json(),
            })),
            "pw_mcc": found.matching.as_ref().map(|m| json!({"mean": m.mean, "pairs": m.pairs.len()})),
            "sae_match": found.distance.map(|mean| json!({"mean_squared_distance": mean})),
            "shared": found.shared.map(|(fraction, count)| json!({"fraction": fraction, "count": count})),
            "corpus": found.corpus.as_ref().map(|corpus| json!({
                "rows": corpus.rows,
                "skipped": corpus.skipped,
                "correlated": [corpus.correlated[0].0, corpus.correlated[1].0],
                "fired": [corpus.correlated[0].1, corpus.correlated[1].1],
                "wmppc": {"model_in_other": corpus.wmppc[0], "other_in_model": corpus.wmppc[1]},
            })),
            "notes": found.notes,
            "features": features.collect::<Vec<Value>>(),
        })
    }

    pub(super) fn print(&self, style: Style, out: &mut impl Write) -> Result<(), Failure> {
        let paths = [&self.args.model.path, &self.args.other];
        for ((side, path), sae) in ["model", "other"].into_iter().zip(paths).zip(self.models) {
            let about = sae.description();
            writeln!(
                out,
                "{}  {} {}, {} -> {} features, {}",
                style.key(side),
                about.publisher,
                about.architecture,
                count(sae.d_in() as u64),
                count(sae.d_sae() as u64),
                labels::one_line(&path.display().to_string()),
            )?;
        }
        self.numbers(style, out)?;
        for note in &self.found.notes {
            writeln!(out, "{} {}", style.dim("note:"), labels::one_line(note))?;
        }
        if !self.args.features.is_empty() {
            return self.table("Features", &self.args.features, style, out);
        }
        let mut sorted: Vec<(f64, u32)> = match (&self.found.near, &self.found.corpus) {
            (Some(near), _) => (0u32..)
                .zip(&near[0].lists)
                .map(|(feature, list)| (list.first().map_or(0.0, |near| near.cosine), feature))
                .collect(),
            (None, Some(corpus)) => {
                let best = corpus.best.iter();
                best.map(|best| (best.correlation, best.feature)).collect()
            }
            (None, None) => Vec::new(),
        };
        sorted.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1)));
        let best = sorted.iter().take(self.args.top).map(|one| one.1);
        let rest = sorted.len().saturating_sub(self.args.top);
        let worst = sorted.iter().rev().take(rest.min(self.args.top));
        self.table("Most alike", &best.collect::<Vec<u32>>(), style, out)?;
        let worst: Vec<u32> = worst.map(|one| one.1).collect();
        self.table("Least alike", &worst, style, out)
    }

    /// What there is to say in numbers: a name, and a value of each side or of both.
    fn numbers(&self, style: Style, out: &mut impl Write) -> Result<(), Failure> {
        let found = self.found;
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let mut lines: Vec<(String, Vec<String>)> = Vec::new();
        if let Some([a, b]) = &found.near {
            let mut both = |name: &str, of: &dyn Fn(&Near) -> String| {
                lines.push((name.into(), vec![of(a), of(b)]));
            };
            both("nearest cosine, mean", &|near| format!("{:.4}", near.mean));
            both("nearest cosine, median", &|near| {
                format!("{:.4}", near.median)
            });
            let name = format!("near (above {})", self.args.limit);
            both(&name, &|near| percent(near.share(near.above)));
            both("split (two or more near)", &|near| {
                percent(near.share(near.split))
            });
        }
        if let Some(corpus) = &found.corpus {
            let each = |of: &dyn Fn(usize) -> String| vec![of(0), of(1)];
            let correlated = |side: usize| {
                let (kept, fired) = corpus.correlated[side];
                match kept == fired {
                    true => count(fired as u64),
                    false => format!("{} of {}", count(kept as u64), count(fired as u64)),
                }
            };
            lines.push(("features that fire".into(), each(&correlated)));
            let value = |side: usize| format!("{:.4}", corpus.wmppc[side]);
            lines.push(("wMPPC".into(), each(&value)));
        }
        if !lines.is_empty() {
            let head = ["model in other".to_string(), "other in model".to_string()];
            lines.insert(0, (String::new(), head.to_vec()));
        }
        if let Some(matching) = &found.matching {
            lines.push(("PW-MCC".into(), vec![format!("{:.4}", matching.mean)]));
        }
        if let Some(distance) = found.distance {
            let value = format!("{distance:.4}");
            lines.push(("SAE Match, mean squared distance".into(), vec![value]));
        }
        if let Some((fraction, pairs)) = found.shared {
            let value = vec![percent(fraction), count(pairs as u64)];
            lines.push(("shared features".into(), value));
        }
        writeln!(out)?;
        for (name, values) in lines {
            let values = values.iter().map(|value| format!("{value:>18}"));
            let name = style.key(fit(&name, 34));
            writeln!(out, "{name}{}", values.collect::<String>())?;
        }
        if let Some(corpus) = &found.corpus {
            let skipped = match corpus.skipped {
                0 => String::new(),
                skipped => format!("; {} are not finite and left out", count(skipped)),
            };
            writeln!(out, "over {} rows{skipped}", count(corpus.rows))?;
        }
        Ok(())
    }

    fn table(
        &self,
        title: &str,
        features: &[u32],
        style: Style,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        if features.is_empty() {
            return Ok(());
        }
        let found = self.found;
        let mut head = fit("feature", 9);
        let columns = [
            (found.near.is_some(), "nearest", "cosine"),
            (found.matching.is_some(), "matched", "|cosine|"),
            (found.corpus.is_some(), "correlated", "correlation"),
        ];
        for (shown, partner, value) in columns {
            if shown {
                head += &format!("{partner:>12}{value:>12}");
            }
        }
        writeln!(out, "\n{}\n{}", style.title(title), style.dim(head))?;
        for &feature in features {
            let line = self.line(feature);
            let mut text = format!("{feature:<9}");
            let cells = [
                line.near.map(|near| (near.feature, near.cosine)),
                line.matched,
                line.best.map(|best| (best.partner, best.correlation)),
            ];
            for (cell, (shown, _, _)) in cells.into_iter().zip(columns) {
                match cell {
                    _ if !shown => {}
                    Some((partner, value)) => text += &format!("{partner:>12}{value:>12.4}"),
                    None => text += &format!("{:>12}{:>12}", "-", "-"),
                }
            }
            let partner = cells.into_iter().flatten().next().map(|cell| cell.0);
            let names = [
                self.name(0, feature),
                partner.and_then(|partner| self.name(1, partner)),
            ];
            let names: Vec<String> = names.into_iter().flatten().collect();
            if !names.is_empty() {
                text += &format!("  {}", names.join(" | "));
            }
            let room = style.columns().unwrap_or(usize::MAX);
            let text = match text.len() > room {
                true => fit(&text, room),
                false => text,
            };
            writeln!(out, "{}", text.trim_end())?;
        }
        Ok(())
    }
}
