// The colours of labels, as in the label tables that `monai-unetpp segment` writes.

// of Okabe and Ito, distinct in all common kinds of colour blindness
const FIRST = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]];
// step of the hue from label to label, which keeps hues apart
const GOLDEN = 0.61803398875;
const SATURATION = 0.75;

/** The colour of a label, as red, green and blue. */
export function colourOf(label) {
  if (label <= FIRST.length) return FIRST[label - 1];
  const hue = (label * GOLDEN) % 1, value = 0.6 + 0.4 * (label % 2);
  return [5, 3, 1].map((start) => {
    const place = (start + hue * 6) % 6;
    return Math.round(255 * value * (1 - SATURATION * Math.max(0, Math.min(place, 4 - place, 1))));
  });
}
