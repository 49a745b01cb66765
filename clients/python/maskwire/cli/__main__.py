from maskwire.cli import main

main()
