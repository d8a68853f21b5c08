// The features of every row whose upper bound is above their limit, and not below the row's floor, as
// a list. One workgroup a row; a row's entries lie together, in no order. Integers only.

@group(0) @binding(0) var<storage, read> upper: array<u32>;
@group(0) @binding(1) var<storage, read> lower: array<u32>;
@group(0) @binding(2) var<storage, read> limits: array<u32>;
@group(0) @binding(3) var<storage, read> floors: array<u32>;
// The number of all entries, and one unused; for each row where its entries begin and how many.
@group(0) @binding(4) var<storage, read_write> ends: array<atomic<u32>>;
@group(0) @binding(5) var<storage, read_write> list: array<u32>;
@group(0) @binding(6) var<uniform> params: Params;

var<workgroup> count: atomic<u32>;
var<workgroup> begin: u32;

fn kept(row: u32, feature: u32, floor_: u32) -> bool {
    let bound = upper[row * params.d_sae + feature];
    return bound > limits[feature] && bound >= floor_;
}

@compute @workgroup_size(256)
fn compact(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.x;
    let floor_ = select(0u, floors[row], (params.flags & RANKED) != 0u);
    if (thread == 0u) {
        atomicStore(&count, 0u);
    }
    workgroupBarrier();
    var mine = 0u;
    for (var feature = thread; feature < params.d_sae; feature += 256u) {
        if (kept(row, feature, floor_)) {
            mine += 1u;
        }
    }
    var at = atomicAdd(&count, mine);
    workgroupBarrier();
    if (thread == 0u) {
        let all = atomicLoad(&count);
        begin = atomicAdd(&ends[0], all);
        atomicStore(&ends[2u + 2u * row], begin);
        atomicStore(&ends[3u + 2u * row], all);
    }
    workgroupBarrier();
    at += begin;
    for (var feature = thread; feature < params.d_sae; feature += 256u) {
        if (kept(row, feature, floor_)) {
            if (at < params.capacity) {
                if ((params.flags & FAST) != 0u) {
                    list[2u * at] = feature;
                    list[2u * at + 1u] = lower[row * params.d_sae + feature];
                } else {
                    list[at] = feature;
                }
            }
            at += 1u;
        }
    }
}
