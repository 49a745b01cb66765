"""The modules of the package sam2 that scripts import, answered by Maskwire's servers: `from sam2.` becomes
`from maskwire.sam2.`."""
