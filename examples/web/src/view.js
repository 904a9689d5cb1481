// The image with its labels in NiiVue.

import { MULTIPLANAR_TYPE, NVImage, Niivue, SHOW_RENDER } from "@niivue/niivue";
import { colourOf } from "./colours.js";

export class View {
  constructor(canvas) {
    this.viewer = new Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [1, 1, 1, 0.6], crosshairWidthUnit: "voxels", crosshairWidth: 0.3,
      dragAndDropEnabled: false, loadingText: "", logLevel: "error", multiplanarLayout: MULTIPLANAR_TYPE.GRID,
      multiplanarShowRender: SHOW_RENDER.ALWAYS,
    });
    this.ready = this.viewer.attachToCanvas(canvas);
  }

  async showImage(file) {
    await this.ready;
    while (this.viewer.volumes.length) this.viewer.removeVolumeByIndex(0);
    this.viewer.addVolume(await NVImage.loadFromFile({ file, name: file.name }));
  }

  async showLabels(bytes, name, labels, opacity) {
    const volume = await NVImage.loadFromFile({ file: new File([bytes], name), name, opacity });
    const numbers = [0, ...labels.map(({ label }) => label)];
    const channel = (index) => numbers.map((label) => (label ? colourOf(label)[index] : 0));
    volume.setColormapLabel({
      R: channel(0), G: channel(1), B: channel(2), A: numbers.map((label) => (label ? 255 : 0)), I: numbers,
      labels: ["", ...labels.map((each) => each.name)],
    });
    this.viewer.addVolume(volume);
    this.viewer.updateGLVolume();
  }

  setOpacity(opacity) {
    if (this.viewer.volumes.length > 1) this.viewer.setOpacity(1, opacity);
  }
}
