// Estimates of all pre-activations of a batch: a tiled matrix product, 64 rows by 64 features by 16
// inputs at a time, and the bounds of module `bounds`, as integer keys that order as floats do.
// `WEIGHTS` and `quad` are given by the host for each number format.

@group(0) @binding(0) var<storage, read> weights: array<WEIGHTS>;
@group(0) @binding(1) var<storage, read> inputs: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> numbers: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> spreads: array<f32>;
@group(0) @binding(4) var<storage, read> limits: array<u32>;
@group(0) @binding(5) var<storage, read_write> upper: array<u32>;
@group(0) @binding(6) var<storage, read_write> lower: array<u32>;
@group(0) @binding(7) var<uniform> params: Params;

// [row][quad], and [input][feature]: a thread reads four neighbouring features at once.
var<workgroup> tile_rows: array<vec4<f32>, 256>;
var<workgroup> tile_weights: array<f32, 1024>;

fn key(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

fn four(at: u32) -> vec4<f32> {
    return vec4<f32>(tile_weights[at], tile_weights[at + 1u], tile_weights[at + 2u], tile_weights[at + 3u]);
}

fn store(row: u32, feature: u32, sum: f32, spread: f32) {
    if (row >= params.rows || feature >= params.features) {
        return;
    }
    let index = params.first + feature;
    let at = row * params.d_sae + index;
    if (limits[index] == OFF) {
        upper[at] = 0u;
        if ((params.flags & (RANKED | FAST)) != 0u) {
            lower[at] = 0u;
        }
        return;
    }
    let number = numbers[index];
    let estimate = number.x * sum + number.y;
    let rank = select(estimate, abs(estimate), (params.flags & MAGNITUDE) != 0u);
    if ((params.flags & FAST) != 0u) {
        upper[at] = key(rank);
        lower[at] = key(estimate);
        return;
    }
    let margin = number.z * spread + number.w;
    upper[at] = key(rank + margin);
    if ((params.flags & RANKED) != 0u) {
        lower[at] = key(rank - margin);
    }
}

@compute @workgroup_size(16, 16)
fn encode(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>,
          @builtin(local_invocation_index) thread: u32) {
    let load_row = thread / 4u;
    let load_quad = thread % 4u;
    let row = group.y * 64u + load_row;
    let feature = group.x * 64u + load_row;
    var sums0 = vec4<f32>();
    var sums1 = vec4<f32>();
    var sums2 = vec4<f32>();
    var sums3 = vec4<f32>();
    for (var start = 0u; start < params.quads; start += 4u) {
        let index = start + load_quad;
        var x = vec4<f32>();
        var w = vec4<f32>();
        if (index < params.quads) {
            if (row < params.rows) {
                x = inputs[row * params.quads + index];
            }
            if (feature < params.features) {
                w = quad(weights[feature * params.quads + index]);
            }
        }
        tile_rows[load_row * 4u + load_quad] = x;
        for (var c = 0u; c < 4u; c++) {
            tile_weights[(load_quad * 4u + c) * 64u + load_row] = w[c];
        }
        workgroupBarrier();
        for (var q = 0u; q < 4u; q++) {
            let x0 = tile_rows[at.y * 16u + q];
            let x1 = tile_rows[at.y * 16u + 4u + q];
            let x2 = tile_rows[at.y * 16u + 8u + q];
            let x3 = tile_rows[at.y * 16u + 12u + q];
            for (var c = 0u; c < 4u; c++) {
                let w4 = four((q * 4u + c) * 64u + at.x * 4u);
                sums0 += x0[c] * w4;
                sums1 += x1[c] * w4;
                sums2 += x2[c] * w4;
                sums3 += x3[c] * w4;
            }
        }
        workgroupBarrier();
    }
    let first_row = group.y * 64u + at.y * 4u;
    let first_feature = group.x * 64u + at.x * 4u;
    for (var c = 0u; c < 4u; c++) {
        store(first_row, first_feature + c, sums0[c], spreads[first_row]);
        store(first_row + 1u, first_feature + c, sums1[c], spreads[first_row + 1u]);
        store(first_row + 2u, first_feature + c, sums2[c], spreads[first_row + 2u]);
        store(first_row + 3u, first_feature + c, sums3[c], spreads[first_row + 3u]);
    }
}
