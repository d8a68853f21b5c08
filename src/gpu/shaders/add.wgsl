// Sums of a row's entries: amounts times vectors, four values a thread, in the order of the entries.
// `WEIGHTS` and `quad` are given by the host for each number format.

struct Params {
    quads: u32,      // values per vector, in groups of four
    first: u32,      // first of the vectors that are bound
    vectors: u32,    // how many are bound
    unused: u32,
}

@group(0) @binding(0) var<storage, read> vectors: array<WEIGHTS>;
// For each row where its entries begin, and behind the last where they end.
@group(0) @binding(1) var<storage, read> ends: array<u32>;
// Vector and bits of the amount.
@group(0) @binding(2) var<storage, read> entries: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(64)
fn add(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let quad_at = group.x * 64u + thread;
    if (quad_at >= params.quads) {
        return;
    }
    let row = group.y;
    let at = row * params.quads + quad_at;
    var sum = sums[at];
    for (var e = ends[row]; e < ends[row + 1u]; e++) {
        let entry = entries[e];
        if (entry.x >= params.first && entry.x - params.first < params.vectors) {
            sum += bitcast<f32>(entry.y) * quad(vectors[(entry.x - params.first) * params.quads + quad_at]);
        }
    }
    sums[at] = sum;
}
