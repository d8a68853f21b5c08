#!/usr/bin/env bash
# Builds llama.cpp, once, from the sources that the crate `llama-cpp-sys-2` carries, and prints the
# folder that holds the result:
#
#     source      llama.cpp's sources (a link into cargo's registry)
#     lib/*.a     the libraries, in the order in which `link` names them
#     link        what to write on the linker's command line
#
# The folder is $CI_CACHE/llama (CI_CACHE as in .ci/run); a finished build is used as it is.
set -euo pipefail
crate=llama-cpp-sys-2 version=0.1.161
cache=${CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/libsae-ci}/llama
mkdir -p "$cache"
# Two runs at once build once.
exec 9>"$cache/lock"
flock 9

if [ "$(cat "$cache/built" 2>/dev/null)" != "$version" ]; then
    # cargo fetches the crate and checks its hash; nothing of it is compiled by cargo.
    mkdir -p "$cache/fetch/src"
    : >"$cache/fetch/src/lib.rs"
    printf '[workspace]\n[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n%s = "=%s"\n' \
        "$crate" "$version" >"$cache/fetch/Cargo.toml"
    cargo fetch --quiet --manifest-path "$cache/fetch/Cargo.toml" >&2
    source=$(echo "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$crate-$version"/llama.cpp)
    [ -f "$source/include/llama.h" ] || { echo "no llama.cpp in $crate $version" >&2; exit 1; }
    ln -sfn "$source" "$cache/source"
    {
        cmake -S "$source" -B "$cache/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
            -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF \
            -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF \
            -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_APP=OFF
        cmake --build "$cache/build" -j "$(nproc)"
    } >"$cache/build.log" 2>&1 || { tail -n 40 "$cache/build.log" >&2; exit 1; }
    mkdir -p "$cache/lib"
    link=
    for name in llama vendor-hash ggml ggml-cpu ggml-base; do
        file=$(find "$cache/build" -name "lib$name.a" | head -1)
        [ -n "$file" ] || { echo "llama.cpp's build gave no lib$name.a" >&2; exit 1; }
        cp "$file" "$cache/lib/"
        link+="$cache/lib/lib$name.a "
    done
    echo "$link-lpthread -ldl -lm" >"$cache/link"
    echo "$version" >"$cache/built"
fi
echo "$cache"
