// Colours of objects and labels: distinct from one another, and from the colours of most photographs.
export const COLOURS = ["#3d8bfd", "#ff6b4a", "#1fb978", "#f5b700", "#a66bff", "#12b5cb", "#ff5c9e", "#8bc34a", "#ff9142", "#6c7bff"];
