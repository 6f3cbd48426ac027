"use strict";

// Shows each 3D model of the page: a GLB with one textured mesh, in its canvas's data-glb. It rotates; dragging rotates it too.

const VERTEX = `
attribute vec3 point, normal;
attribute vec2 place;
uniform mat4 turned, seen;
varying vec3 facing;
varying vec2 at;
void main() {
  facing = mat3(turned) * normal;
  at = place;
  gl_Position = seen * turned * vec4(point, 1.0);
}`;

const FRAGMENT = `
precision mediump float;
uniform sampler2D image;
varying vec3 facing;
varying vec2 at;
void main() {
  float light = 0.45 + 0.6 * max(dot(normalize(facing), normalize(vec3(0.4, 0.6, 1.0))), 0.0);
  gl_FragColor = vec4(texture2D(image, at).rgb * min(light, 1.1), 1.0);
}`;

function parts(bytes) {
  const length = new DataView(bytes.buffer).getUint32(12, true);
  const gltf = JSON.parse(new TextDecoder().decode(bytes.subarray(20, 20 + length)));
  const data = (number) => {
    const { byteOffset, byteLength } = gltf.bufferViews[number];
    return bytes.slice(28 + length + byteOffset, 28 + length + byteOffset + byteLength);
  };
  const { attributes, indices } = gltf.meshes[0].primitives[0];
  const values = (number) => data(gltf.accessors[number].bufferView);
  return {
    attributes: { point: values(attributes.POSITION), normal: values(attributes.NORMAL), place: values(attributes.TEXCOORD_0) },
    indices: values(indices),
    count: gltf.accessors[indices].count,
    image: new Blob([data(gltf.images[0].bufferView)], { type: gltf.images[0].mimeType }),
  };
}

function program(gl) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  gl.useProgram(made);
  return made;
}

function turned(across, down) {
  const [c, s, d, t] = [Math.cos(across), Math.sin(across), Math.cos(down), Math.sin(down)];
  return [c, s * t, -s * d, 0, 0, d, t, 0, s, -c * t, c * d, 0, 0, 0, 0, 1];
}

function seen(aspect) {
  const near = 0.1, far = 10, wide = 3.4, away = 1.9;
  const depth = (far + near) / (near - far), shift = (2 * far * near) / (near - far);
  return [wide / aspect, 0, 0, 0, 0, wide, 0, 0, 0, 0, depth, -1, 0, 0, shift - depth * away, away];
}

async function show(canvas) {
  const gl = canvas.getContext("webgl", { antialias: true });
  if (!gl) {
    canvas.replaceWith("This browser draws no 3D: open the file in a viewer.");
    return;
  }
  const model = parts(Uint8Array.from(atob(canvas.dataset.glb), (letter) => letter.charCodeAt(0)));
  const used = program(gl);
  for (const [name, values] of Object.entries(model.attributes)) {
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    const place = gl.getAttribLocation(used, name);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, name === "place" ? 2 : 3, gl.FLOAT, false, 0, 0);
  }
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, model.indices, gl.STATIC_DRAW);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  const image = await createImageBitmap(model.image);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, image);
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
  gl.enable(gl.DEPTH_TEST);

  let across = -0.6, down = 0.25, turning = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  canvas.addEventListener("pointerdown", (event) => {
    turning = false;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) [across, down] = [across + event.movementX / 120, down + event.movementY / 120];
  });
  const draw = () => {
    if (turning) across += 0.008;
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix4fv(gl.getUniformLocation(used, "turned"), false, turned(across, down));
    gl.uniformMatrix4fv(gl.getUniformLocation(used, "seen"), false, seen(canvas.width / canvas.height));
    gl.drawElements(gl.TRIANGLES, model.count, gl.UNSIGNED_SHORT, 0);
    requestAnimationFrame(draw);
  };
  draw();
}

document.querySelectorAll("canvas[data-glb]").forEach(show);
