from assetbatch.arrow import bars_table as bars_table

__version__: str
