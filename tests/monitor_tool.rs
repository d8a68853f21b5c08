//! `sae monitor` and `sae report`, as a person runs them: alerts as lines, statistics, and a page
//! that a browser shows.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("monitor_tool")
        .join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn sae(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sae"));
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The demo's model and activations: real sentences.
fn demo(name: &str) -> String {
    root()
        .join("src/bin/sae/demo")
        .join(name)
        .display()
        .to_string()
}

/// Rules over features that fire in the demo.
fn rules(folder: &Path) -> String {
    let path = folder.join("rules.json");
    // The most frequent features of the rows, by the tool itself.
    let out = folder.join("probe.json");
    let empty = folder.join("empty.json");
    fs::write(&empty, r#"{"rules": []}"#).unwrap();
    let run = sae(&[
        "monitor",
        &demo("sae"),
        &demo("activations.npy"),
        "--rules",
        empty.to_str().unwrap(),
        "--stats",
        out.to_str().unwrap(),
    ]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let probe: Value = serde_json::from_str(&fs::read_to_string(out).unwrap()).unwrap();
    let mut features = probe["statistics"]["features"].as_array().unwrap().clone();
    features.sort_by(|a, b| b["fired"].as_u64().cmp(&a["fired"].as_u64()));
    let index = |at: usize| features[at]["feature"].as_u64().unwrap();
    let value = serde_json::json!({
        "name": "demo <rules>",
        "rules": [
            {"name": "frequent", "kind": "threshold", "feature": index(0), "over": 0},
            {"name": "together", "kind": "coactivation", "features": [index(1), index(2), index(3)], "at_least": 2, "within": 3, "limit": {"events": 1, "rows": 10}},
            {"name": "never", "kind": "threshold", "feature": index(5), "over": 1e6},
        ],
        "labels": {index(0).to_string(): "a <label> & more"},
    });
    fs::write(&path, value.to_string()).unwrap();
    path.display().to_string()
}

#[test]
fn alerts_are_lines_of_json_when_piped() {
    let folder = folder("lines");
    let rules = rules(&folder);
    let arguments = [
        "monitor",
        &demo("sae"),
        &demo("activations.npy"),
        "--rules",
        &rules,
    ];
    let plain = sae(&arguments);
    assert!(plain.status.success(), "{}", text(&plain.stderr));
    let lines: Vec<Value> = text(&plain.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.len() > 3);
    assert!(
        lines
            .iter()
            .any(|line| line["features"][0]["label"] == "a <label> & more")
    );
    assert!(lines.iter().all(|line| line["rule"] != "never"));
    // The same through a full encode, and with --watch into a pipe.
    let stats = folder.join("stats.json").display().to_string();
    let snapshot = folder.join("statistics.bin").display().to_string();
    let quality = folder.join("quality.bin").display().to_string();
    let more = [
        &arguments[..],
        &["--watch", "--stats", &stats, "--snapshot", &snapshot],
        &["--quality", &quality],
    ]
    .concat();
    let watched = sae(&more);
    assert!(watched.status.success(), "{}", text(&watched.stderr));
    assert_eq!(text(&watched.stdout), text(&plain.stdout));
    let path = stats;
    let stats: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(stats["counts"]["events"], lines.len());
    let statistics =
        sae::monitor::Accumulator::from_bytes(&fs::read(snapshot).unwrap(), None).unwrap();
    assert_eq!(stats["statistics"]["rows"], statistics.rows());
    assert_eq!(stats["statistics"]["dead"], statistics.dead().len());
    let model = sae::Sae::open(demo("sae"), &sae::OpenOptions::default()).unwrap();
    let quality = sae::monitor::Quality::from_bytes(&fs::read(quality).unwrap(), &model).unwrap();
    assert_eq!(stats["quality"]["rows"], quality.summary().rows);
    assert!(quality.summary().rows == statistics.rows() && quality.summary().fvu < 0.5);
    // The same statistics are a baseline.
    let drift = folder.join("drift.json");
    fs::write(
        &drift,
        r#"{"rules": [{"name": "d", "kind": "cusum", "feature": 388}]}"#,
    )
    .unwrap();
    let drift = drift.display().to_string();
    let arguments_of = |more: &[&str]| {
        sae(&[
            &[
                "monitor",
                &demo("sae"),
                &demo("activations.npy"),
                "--rules",
                &drift,
            ],
            more,
        ]
        .concat())
    };
    let without = arguments_of(&[]);
    assert_eq!(without.status.code(), Some(1));
    assert!(text(&without.stderr).contains("`rules[0].slack`"));
    let with = arguments_of(&["--baseline", &path]);
    assert!(with.status.success(), "{}", text(&with.stderr));
    // Streams of some rows begin anew.
    let streams = sae(&[&arguments[..], &["--stream-rows", "20"]].concat());
    let last: Value = serde_json::from_str(text(&streams.stdout).lines().last().unwrap()).unwrap();
    assert!(last["stream"].as_u64().unwrap() > 0 && last["position"].as_u64().unwrap() < 20);
}

/// In a terminal: a view that moves, with every rule, and lines that stay when it is gone.
#[test]
fn watching_in_a_terminal_is_live() {
    let folder = folder("terminal");
    let line = format!(
        "stty rows 40 cols 100; {} monitor {} {} --rules {} --watch",
        env!("CARGO_BIN_EXE_sae"),
        demo("sae"),
        demo("activations.npy"),
        rules(&folder)
    );
    let mut script = Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .stdin(std::process::Stdio::null());
    let output = match script
        .env_remove("NO_COLOR")
        .env("TERM", "xterm-256color")
        .output()
    {
        Ok(output) => output,
        Err(_) => {
            assert!(
                std::env::var_os("SAE_REQUIRE_TOOLS").is_none(),
                "no `script`"
            );
            println!("skipped: the live view, `script` is not installed");
            return;
        }
    };
    assert!(output.status.success(), "{}", text(&output.stdout));
    let shown = text(&output.stdout);
    for part in [
        "/136 rows",
        "rows/s",
        "frequent",
        "together",
        "never",
        "0 alerts",
        "\x1b[2K",
    ] {
        assert!(shown.contains(part), "no `{part}` in {shown}");
    }
    // What stays comes after the last time that a line was erased.
    let stays = shown.rsplit("\x1b[2K").next().unwrap();
    assert!(
        stays.contains("frequent") && stays.contains("136 rows, "),
        "{stays}"
    );
}

#[test]
fn wrong_files_are_named() {
    let folder = folder("wrong");
    let bad = folder.join("bad.json");
    fs::write(
        &bad,
        r#"{"rules": [{"name": "a", "kind": "threshold", "feature": 999999, "over": 1}]}"#,
    )
    .unwrap();
    let run = sae(&[
        "monitor",
        &demo("sae"),
        &demo("activations.npy"),
        "--rules",
        bad.to_str().unwrap(),
    ]);
    assert_eq!(run.status.code(), Some(1));
    let message = text(&run.stderr);
    assert!(
        message.contains("bad.json") && message.contains("`rules[0].feature`"),
        "{message}"
    );
    let run = sae(&[
        "report",
        bad.to_str().unwrap(),
        "-o",
        folder.join("x.html").to_str().unwrap(),
    ]);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).contains("sae monitor --stats"));
}

#[test]
fn the_worked_rules_are_rules() {
    for name in ["alerts.json", "heads.json", "drift.json"] {
        let path = root().join("docs/rules").join(name);
        let read = fs::read_to_string(path).unwrap();
        let rules =
            sae::monitor::Rules::from_json(&read).unwrap_or_else(|error| panic!("{name}: {error}"));
        let back = sae::monitor::Rules::from_value(&rules.to_json()).unwrap();
        // Not the rules themselves: a CUSUM without `over` holds a NaN.
        assert_eq!(back.to_json(), rules.to_json(), "{name}");
        // And for the demo's model.
        let run = sae(&[
            "monitor",
            &demo("sae"),
            &demo("activations.npy"),
            "--rules",
            root().join("docs/rules").join(name).to_str().unwrap(),
        ]);
        assert!(run.status.success(), "{name}: {}", text(&run.stderr));
    }
    // The schema names what the reader takes.
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(root().join("docs/rules/schema.json")).unwrap())
            .unwrap();
    let kinds = schema["$defs"]["rule"]["properties"]["kind"]["enum"]
        .as_array()
        .unwrap();
    let wrong = sae::monitor::Rules::from_json(r#"{"rules": [{"name": "a", "kind": "?"}]}"#);
    let message = wrong.unwrap_err().to_string();
    assert!(
        kinds
            .iter()
            .all(|kind| message.contains(kind.as_str().unwrap())),
        "{message}"
    );
}

/// The page, in a real browser: its parts are there, and a screenshot is taken.
#[test]
fn the_report_is_a_page_that_a_browser_shows() {
    let folder = folder("page");
    let rules = rules(&folder);
    let stats = folder.join("stats.json").display().to_string();
    let page = folder.join("report.html");
    let run = sae(&[
        "monitor",
        &demo("sae"),
        &demo("activations.npy"),
        "--rules",
        &rules,
        "--labels",
        &demo("labels.json"),
        "--stats",
        &stats,
    ]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    // Rules without a name leave no colon behind.
    let mut unnamed: Value = serde_json::from_str(&fs::read_to_string(&stats).unwrap()).unwrap();
    unnamed["rules_name"] = "".into();
    let other = folder.join("unnamed.json").display().to_string();
    fs::write(&other, unnamed.to_string()).unwrap();
    let run = sae(&["report", &other, "-o", page.to_str().unwrap()]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("<h1>Monitoring</h1>") && html.contains("<title>Monitoring</title>"));
    let run = sae(&["report", &stats, "-o", page.to_str().unwrap()]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("<h1>Monitoring: demo &lt;rules&gt;</h1>"));
    assert!(html.contains("a &lt;label&gt; &amp; more") && !html.contains("<label>"));
    for outside in ["http://", "https://", "<script", "@import", "url("] {
        assert!(!html.contains(outside), "the page has `{outside}`");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let browser = std::env::split_paths(&path)
        .flat_map(|folder| {
            ["chromium", "chromium-browser", "google-chrome"].map(|name| folder.join(name))
        })
        .find(|file| file.is_file());
    let Some(browser) = browser else {
        assert!(
            std::env::var_os("SAE_REQUIRE_TOOLS").is_none(),
            "`chromium` is not installed"
        );
        println!("skipped: the page in a browser (no chromium installed)");
        return;
    };
    let profile = folder.join("profile");
    let shot = folder.join("report.png");
    let _ = fs::remove_file(&shot);
    let open = |what: &str| {
        let mut command = Command::new(&browser);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ]);
        command.args([
            "--disable-background-networking",
            "--no-first-run",
            "--window-size=1120,2600",
        ]);
        command.arg(format!("--user-data-dir={}", profile.display()));
        command.arg(what).arg(format!("file://{}", page.display()));
        command.output().unwrap()
    };
    let dom = text(&open("--dump-dom").stdout);
    for part in ["numbers", "alerts", "time", "density", "features"] {
        assert!(
            dom.contains(&format!("id=\"{part}\"")),
            "no `{part}` in the page"
        );
    }
    assert!(dom.matches("<svg").count() > 20 && dom.matches("<rect").count() > 50);
    open(&format!("--screenshot={}", shot.display()));
    let png = fs::read(&shot).unwrap();
    assert!(
        png.starts_with(b"\x89PNG") && png.len() > 40_000,
        "{} bytes",
        png.len()
    );
    println!("the screenshot is {}", shot.display());
}
