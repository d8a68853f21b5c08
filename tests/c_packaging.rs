//! The installed library, as strangers use it: CMake's `find_package`, pkg-config, plain static
//! linking. It is built with `panic = "abort"` here; all other C tests use one that unwinds.

#[path = "c/support.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{cases, folder, root, run, tool};

/// What the library as it ships, stripped, should not be larger than. Missed since the conventions
/// of every publisher and steering are in it; the test says by how much.
const GOAL_SHARED_LIBRARY_BYTES: u64 = 1_500_000;
/// What it may not be larger than, until the goal is met again.
const MAX_SHARED_LIBRARY_BYTES: u64 = 1_800_000;

/// Builds and installs; returns the prefix and what the build printed.
fn install(cmake: &Path) -> (PathBuf, String) {
    let build = folder("cmake-build");
    let prefix = folder("installed");
    fs::remove_dir_all(&prefix).unwrap();
    // CMake refuses a build folder that was configured from another checkout.
    let _ = fs::remove_file(build.join("CMakeCache.txt"));
    let mut configure = Command::new(cmake);
    configure
        .arg("-S")
        .arg(root().join("ffi"))
        .arg("-B")
        .arg(&build);
    run(configure.args(["-DSAE_PANIC_ABORT=ON", "-DCMAKE_INSTALL_LIBDIR=lib"]));
    let mut command = Command::new(cmake);
    command.arg("--build").arg(&build);
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    let mut install = Command::new(cmake);
    install.arg("--install").arg(&build).arg("--prefix");
    run(install.arg(&prefix));
    (prefix, printed.into_owned())
}

#[test]
fn an_installed_library_is_found_and_linked() {
    let (Some(cmake), Some(cc)) = (tool("cmake"), tool("cc")) else {
        return;
    };
    let (prefix, printed) = install(&cmake);
    let library = prefix.join("lib/libsae.so.0.1");
    let size = fs::metadata(&library).unwrap().len();
    assert!(size <= MAX_SHARED_LIBRARY_BYTES, "{size} bytes");
    if size > GOAL_SHARED_LIBRARY_BYTES {
        println!("missed: libsae.so has {size} bytes, the goal is {GOAL_SHARED_LIBRARY_BYTES}");
    }
    if let Some(readelf) = tool("readelf") {
        let dynamic = run(Command::new(readelf).arg("-d").arg(&library));
        assert!(
            dynamic.contains("Library soname: [libsae.so.0.1]"),
            "{dynamic}"
        );
    }
    // What rustc says a static library needs is what the package says.
    let line = printed
        .lines()
        .find_map(|line| line.split_once("native-static-libs: "));
    let (_, native) = line.unwrap_or_else(|| panic!("no list of native libraries: {printed}"));
    let pc = fs::read_to_string(prefix.join("lib/pkgconfig/sae.pc")).unwrap();
    assert!(
        pc.contains(&format!("\nLibs.private: {}\n", native.trim())),
        "{pc}"
    );
    assert!(pc.contains(&format!("\nVersion: {}\n", env!("CARGO_PKG_VERSION"))));

    // CMake.
    let build = folder("consumer-build");
    let mut configure = Command::new(&cmake);
    configure.arg("-S").arg(root().join("tests/c/consumer"));
    configure.arg("-B").arg(&build);
    configure.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()));
    let example = root().join("ffi/examples/features.c");
    run(configure.arg(format!("-DEXAMPLE={}", example.display())));
    run(Command::new(&cmake).arg("--build").arg(&build));
    let case = &cases()[0];
    let prints = |program: &Path| run(Command::new(program).args([&case.folder, &case.rows]));
    let shared = prints(&build.join("with_shared"));
    assert!(shared.lines().count() > 100, "{shared}");
    assert_eq!(prints(&build.join("with_static")), shared);

    // pkg-config, and plain static linking with the libraries that it lists.
    let Some(pkg_config) = tool("pkg-config") else {
        return;
    };
    let flags = |arguments: &[&str]| -> Vec<String> {
        let mut command = Command::new(&pkg_config);
        command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        let text = run(command.args(arguments).arg("sae"));
        text.split_whitespace().map(str::to_string).collect()
    };
    let out = folder("programs");
    let mut command = Command::new(&cc);
    command.arg(&example).args(flags(&["--cflags", "--libs"]));
    command.arg(format!("-Wl,-rpath,{}", prefix.join("lib").display()));
    run(command.arg("-o").arg(out.join("pkg-shared")));
    assert_eq!(prints(&out.join("pkg-shared")), shared);
    let mut command = Command::new(&cc);
    command.arg(&example).args(flags(&["--cflags"]));
    command.arg(prefix.join("lib/libsae.a"));
    let private = flags(&["--static", "--libs-only-l"]);
    command.args(private.iter().filter(|flag| *flag != "-lsae"));
    run(command.arg("-o").arg(out.join("pkg-static")));
    assert_eq!(prints(&out.join("pkg-static")), shared);
}
