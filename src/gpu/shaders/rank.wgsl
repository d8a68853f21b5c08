// The k-th largest key of every row, by its bytes from the highest: a histogram for each. One
// workgroup a row, integers only.

@group(0) @binding(0) var<storage, read> keys: array<u32>;
@group(0) @binding(1) var<storage, read_write> floors: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

var<workgroup> counts: array<atomic<u32>, 256>;
var<workgroup> prefix: u32;
var<workgroup> left: u32;

@compute @workgroup_size(256)
fn rank(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let start = group.x * params.d_sae;
    if (thread == 0u) {
        prefix = 0u;
        left = params.k;
    }
    for (var pass_ = 0u; pass_ < 4u; pass_++) {
        let shift = 24u - 8u * pass_;
        // The bytes before this one; none in the first pass, where a shift by 32 would be none.
        let mask = select(~0u << ((shift + 8u) & 31u), 0u, pass_ == 0u);
        atomicStore(&counts[thread], 0u);
        workgroupBarrier();
        let wanted = prefix;
        for (var i = thread; i < params.d_sae; i += 256u) {
            let value = keys[start + i];
            if ((value & mask) == wanted) {
                atomicAdd(&counts[(value >> shift) & 255u], 1u);
            }
        }
        workgroupBarrier();
        if (thread == 0u) {
            var byte = 255u;
            loop {
                let count = atomicLoad(&counts[byte]);
                if (count >= left || byte == 0u) {
                    break;
                }
                left -= count;
                byte -= 1u;
            }
            prefix = wanted | (byte << shift);
        }
        workgroupBarrier();
    }
    if (thread == 0u) {
        floors[group.x] = prefix;
    }
}
