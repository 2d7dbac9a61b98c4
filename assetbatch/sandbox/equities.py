"""The stocks and indices that the sandbox knows: real names, invented levels. No market data."""

# Ticker, level, type, exchange, how busy (see `Pace`), name. KIM and KIMpL are two securities: case counts. ZVZZT is
# one that exchanges test with, CKX trades five minutes a day, TCEHY over the counter.
STOCKS = """
AAPL  231.4   CS   XNAS busy  Apple Inc.
AMD   141.2   CS   XNAS busy  Advanced Micro Devices
AMZN  202.6   CS   XNAS busy  Amazon.Com Inc
BAC   46.7    CS   XNYS busy  Bank of America Corporation
BF.B  41.3    CS   XNYS thin  Brown Forman Inc Class B
BRK.B 471.8   CS   XNYS busy  Berkshire Hathaway Inc. Class B
CAT   398.1   CS   XNYS busy  Caterpillar Inc.
CKX   12.7    CS   XASE rare  CKX Lands, Inc.
COST  921.5   CS   XNAS busy  Costco Wholesale Corp
CSCO  57.9    CS   XNAS busy  Cisco Systems, Inc.
DIS   113.6   CS   XNYS busy  The Walt Disney Company
F     11.1    CS   XNYS busy  Ford Motor Company
GE    181.9   CS   XNYS busy  GE Aerospace
GOOG  171.5   CS   XNAS busy  Alphabet Inc. Class C
GOOGL 169.9   CS   XNAS busy  Alphabet Inc. Class A
HD    408.8   CS   XNYS busy  Home Depot, Inc.
HON   226.4   CS   XNAS busy  Honeywell International Inc.
IBM   215.7   CS   XNYS busy  International Business Machines
INTC  24.9    CS   XNAS busy  Intel Corp
IWM   233.2   ETF  ARCX busy  iShares Russell 2000 ETF
JNJ   153.8   CS   XNYS busy  Johnson & Johnson
JPM   243.6   CS   XNYS busy  JPMorgan Chase & Co.
JPMpC 25.4    PFD  XNYS thin  JPMorgan Chase & Co. Preferred Series EE
KIM   25.2    CS   XNYS busy  Kimco Realty Corporation
KIMpL 22.9    PFD  XNYS rare  Kimco Realty Corporation Preferred Class L
KO    63.1    CS   XNYS busy  The Coca-Cola Company
META  561.3   CS   XNAS busy  Meta Platforms, Inc.
MSFT  417.2   CS   XNAS busy  Microsoft Corp
NFLX  884.6   CS   XNAS busy  NetFlix Inc
NVDA  142.8   CS   XNAS busy  Nvidia Corp
ORCL  188.4   CS   XNYS busy  Oracle Corp
PEP   161.7   CS   XNAS busy  PepsiCo, Inc.
PFE   25.9    CS   XNYS busy  Pfizer Inc.
PG    175.2   CS   XNYS busy  Procter & Gamble Company
PNRG  188.3   CS   XNAS thin  PrimeEnergy Resources Corp
QQQ   507.4   ETF  XNAS busy  Invesco QQQ Trust
SPY   594.3   ETF  ARCX busy  SPDR S&P 500 ETF Trust
T     22.8    CS   XNYS busy  AT&T Inc.
TCEHY 51.6    ADRC OTC  thin  Tencent Holdings Ltd ADR
TSLA  342.1   CS   XNAS busy  Tesla, Inc. Common Stock
TSM   190.9   ADRC XNYS busy  Taiwan Semiconductor Manufacturing ADR
XLF   51.3    ETF  ARCX busy  Financial Select Sector SPDR Fund
XOM   120.6   CS   XNYS busy  Exxon Mobil Corporation
ZVZZT 10.2    TEST XNAS busy  Nasdaq Test Stock
"""
# Ticker, level, the feed that it comes from, whether plans without live prices have it, name.
INDICES = """
I:COMP 19055  NasdaqGIDS     free  Nasdaq Composite Index
I:DJI  44296  CMEMarketData  free  Dow Jones Industrial Average
I:NDX  20776  NasdaqGIDS     paid  Nasdaq 100
I:RUT  2406   CMEMarketData  free  Russell 2000 Index
I:SPX  5969   CMEMarketData  paid  S&P 500
I:VIX  15.24  CboeMarketData paid  Cboe Volatility Index
"""
