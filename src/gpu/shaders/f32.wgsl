fn quad(held: vec4<f32>) -> vec4<f32> {
    return held;
}
