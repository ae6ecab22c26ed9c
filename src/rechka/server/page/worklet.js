// Runs in the audio thread: hands on what the microphone hears, in pieces of about 40 ms; any message asks for the rest.

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.kept = new Float32Array(2048);
    this.size = 0;
    this.port.onmessage = () => {
      this.hand();
      this.port.postMessage(null);
    };
  }

  hand() {
    if (this.size) this.port.postMessage(this.kept.slice(0, this.size));
    this.size = 0;
  }

  process(inputs) {
    const heard = inputs[0][0];
    if (heard) {
      if (this.size + heard.length > this.kept.length) this.hand();
      this.kept.set(heard, this.size);
      this.size += heard.length;
    }
    return true;
  }
}

registerProcessor("rechka-capture", Capture);
