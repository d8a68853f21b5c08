// The bits of a bf16 are the upper half of those of the f32.
fn quad(held: vec2<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(held.x << 16u, held.x & 0xffff0000u, held.y << 16u, held.y & 0xffff0000u));
}
