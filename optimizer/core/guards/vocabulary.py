"""The vocabulary of the guards: synonyms, irregular forms, numbers, units, opposites.

Rule: general English, no sentence of any test set. A pair that may differ in a technical prompt (build / create,
sort / kind, drop / delete) is NOT a synonym here: a miss costs seconds, a wrong answer trust.
Must not know: how the tables are applied.
"""

from optimizer.core.guards.words import word_set


def _groups(text: str) -> dict[str, str]:
    """ "a b c; d e" -> {b: a, c: a, e: d}."""
    table: dict[str, str] = {}
    for group in text.split(";"):
        first, *others = group.split()
        table.update(dict.fromkeys(others, first))
    return table


def _pairs(text: str) -> frozenset[frozenset[str]]:
    return frozenset(frozenset(pair.split()) for pair in text.split(";"))


# Every inflection of these is covered by `forms`.
SYNONYMS = _groups("""
rupee inr rs; bug defect; cure remedy; picture pic;
someone somebody; anyone anybody; everyone everybody; legitimate legit; daily everyday; gasoline petrol; movie
flick; effect impact consequence; advantage benefit; disadvantage drawback flaw; country nation; company firm;
resume cv; flat apartment; vacation holiday; mother mom mum; father dad; bike bicycle; tv television; fridge
refrigerator; ad advertisement; math maths mathematics; developer programmer coder; amazing awesome incredible;
famous popular; stop quit cease; significantly dramatically substantially; suitable appropriate; deal cope handle;
earphone headphone; attempt try; obtain acquire; ban prohibit forbid; hate dislike; currently presently nowadays;
entire whole; reside live; use employ utilize utilise leverage; provide offer supply furnish; show display; get
obtain retrieve fetch acquire; create generate produce make construct yield; delete remove erase eliminate; change
modify alter; begin start commence; convert transform rewrite turn; specify indicate designate; allow enable permit
let facilitate; contain include comprise incorporate; goal purpose aim objective intent intention; method procedure
technique; manner fashion way approach; large big huge; small little; fast quick swift rapid; quickly rapidly
swiftly; important essential crucial vital; main primary principal; different distinct; many several multiple
numerous various; useful helpful advantageous beneficial; kind type variety; buy purchase; choose select pick;
repair mend; fix resolve; help assist aid; need require necessitate; price cost; movie film; picture photo image
photograph; increase raise; improve enhance boost; explain describe elucidate clarify; summarize summarise summary;
execute run; perform conduct; verify check validate; determine ascertain; regex regexp; database db; kubernetes k8s;
javascript js; typescript ts; postgresql postgres; repository repo; configuration config; environment env;
documentation docs doc; application app; information info; directory folder; argument arg; parameter param;
authentication auth; administrator admin; specification spec; maximum max; minimum min; average avg; number
quantity; example instance; guide guideline; part portion; section segment; task job activity; capability
functionality feature; return give; accept take; compute calculate; merge combine; modify edit; expose publish;
upgrade bump; refactor rework; scared afraid frightened; kid child children; woman women; man men; person people
individual human; usa america; uk britain; earn gain; destroy ruin; reply respond; own possess; occur happen;
discover find; rely depend; answer response; issue problem; difficult hard tough; easy simple straightforward;
correct right; incorrect wrong; possible feasible; necessary needed mandatory required; access reach; separate split
divide; store save; load import; attribute property characteristic; basis foundation base; additional further extra
more; whole entire complete full; particular certain specific; typical usual common; quora quora.com; cheap
inexpensive; weird strange odd; sick ill; smart intelligent clever; stupid dumb; rich wealthy; happy glad; sad
unhappy; angry mad; funny hilarious; start launch; latest newest; decrease reduce lessen; thing stuff; processor
cpu; hardest toughest; doctor physician; lawyer attorney; salary wage pay; university college; teach educate; car
automobile; phone cellphone smartphone; laptop notebook; hotel inn; toilet bathroom; speak talk; weight mass;
migrate migration; install installation; delete deletion; create creation; convert conversion; explain explanation;
support supported; compare comparison; translate translation; implement implementation; optimize optimise
optimization optimisation; configure configuring; classify classification; validate validation; generate generation;
organize organise; analyze analyse analysis; initialize initialise; customize customise; recognize recognise; color
colour; center centre; favorite favourite; behavior behaviour; organization organisation; license licence; program
programme; gray grey; normalize normalise; serialize serialise; visualize visualise; minimize minimise; maximize
maximise; prioritize prioritise
""")

IRREGULAR = _groups("""
go went gone goes; make made; write wrote written; run ran; get got gotten; take took taken; give gave given; find
found; know knew known; see saw seen; build built; send sent; keep kept; lose lost; buy bought; bring brought; think
thought; teach taught; catch caught; choose chose chosen; begin began begun; break broke broken; speak spoke spoken;
say said; tell told; sell sold; hold held; leave left; meet met; lead led; feed fed; feel felt; mean meant; spend
spent; win won; draw drew drawn; grow grew grown; throw threw thrown; show shown; eat ate eaten; fall fell fallen;
drive drove driven; ride rode ridden; rise rose risen; become became; come came; do done; understand understood;
index indices indexes; child children; foot feet; tooth teeth; mouse mice; person persons; datum data; criterion
criteria; cache cached caching caches; man men; woman women; hide hid hidden
""")
PARTICIPLES = word_set("""
made written run got taken given found known seen built sent kept lost bought brought thought taught caught chosen
begun broken spoken said told sold held left met led fed felt meant spent won drawn grown thrown shown eaten driven
set put cut read understood done
""")
# Participles that only describe: "dogs are scared of it" says what "dogs are afraid of it" says.
STATES = word_set("scared frightened interested tired bored excited worried married sick united related limited")
# What looks like an ending here is none.
NOT_ING = word_set("""
string thing king ring spring sing bring being during nothing something everything anything morning evening ceiling
sibling wing ping swing sting wedding building meeting bing ming beijing
""")
NOT_S = word_set("""
is this was has as us its yes bus gas kubernetes class process address access css js aws news series species always
perhaps redis os ios dns https tls rss pandas numpy keras windows rails sass less across previous various numerous
analysis basis status canvas alias bias lens plus minus focus virus mars paris texas jesus james thomas chess boss
loss cross express press glass grass mass
""")
NOT_ED = word_set("""
need feed seed speed weed bed red shed embed indeed exceed proceed succeed hundred fed led united bleed breed
""")

_COUNTING = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty
"""
NUMBERS = {word: str(number) for number, word in enumerate(_COUNTING.split())} | {
    "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90",
    "hundred": "100", "thousand": "1000", "million": "1000000", "billion": "1000000000", "dozen": "12", "twice": "2",
    "thrice": "3",
}  # fmt: skip
ORDINALS = {"1st": "first", "2nd": "second", "3rd": "third", "4th": "fourth", "5th": "fifth"}

_UNITS = _groups("""
ms millisecond milliseconds msec; s sec secs second seconds; min mins minute minutes; h hr hrs hour hours; day days
d; week weeks; month months; year years yr yrs; kb kilobyte kilobytes; mb megabyte megabytes; gb gigabyte gigabytes;
tb terabyte terabytes; kg kilogram kilograms kilo kilos kgs; g gram grams; mg milligram milligrams; km kilometer
kilometers kilometre kilometres kms; m meter meters metre metres; cm centimeter centimeters centimetre centimetres;
mm millimeter millimeters millimetre millimetres; mile miles mi; ft foot feet; inch inches; lb lbs pound pounds; l
liter liters litre litres; ml milliliter milliliters millilitre millilitres; % percent pct; usd $ dollar dollars
bucks; eur € euro euros; gbp £; byte bytes; bit bits; times x; k; hz; khz; mhz; ghz; w watt watts; kw; mw; v volt
volts; mv; a amp amps; c; f; rs rupees inr
""")
# Any writing of a unit -> the unit; looked up only after a number.
UNITS = _UNITS | {unit: unit for unit in [*_UNITS.values(), *word_set("k hz khz mhz ghz kw mw mv c f")]}

# What LIGHT, which allows other words, must still notice.
OPPOSITES = _pairs("""
above below; over under; before after; first last; increase decrease; enable disable; start stop; begin end; open
close; fast slow; faster slower; more less; more fewer; most least; maximum minimum; max min; upgrade downgrade;
encrypt decrypt; install uninstall; load unload; lock unlock; mount unmount; push pull; push pop; read write; import
export; upload download; add remove; add subtract; create delete; insert delete; create drop; allow deny; allow
forbid; accept reject; accept refuse; include exclude; keep discard; keep delete; true false; on off; up down; left
right; top bottom; high low; higher lower; highest lowest; large small; larger smaller; largest smallest; big
little; long short; longer shorter; longest shortest; old new; older newer; oldest newest; early late; earlier
later; good bad; better worse; best worst; safe unsafe; safe dangerous; valid invalid; legal illegal; possible
impossible; public private; internal external; input output; source target; client server; buy sell; win lose; gain
lose; love hate; hot cold; warm cool; hard easy; hard soft; heavy light; dark light; deep shallow; wide narrow;
thick thin; full empty; rich poor; strong weak; success failure; succeed fail; pass fail; show hide; send receive;
ask answer; attach detach; connect disconnect; commit rollback; compress decompress; compress expand; encode decode;
serialize deserialize; expand collapse; grow shrink; raise lower; rise fall; ascend descend; ascending descending;
asc desc; positive negative; even odd; minor major; always never; all none; every none; same different; equal
different; inner outer; inside outside; in out; horizontal vertical; row column; male female; man woman; men women;
boy girl; father mother; brother sister; husband wife; king queen; north south; east west; day night; today
yesterday; today tomorrow; morning evening; summer winter; past future; ancient modern; import export; advantage
disadvantage; pro con; benefit drawback; strength weakness; cause effect; question answer; teacher student; parent
child; sync async; synchronous asynchronous; static dynamic; mutable immutable; register unregister; subscribe
unsubscribe; login logout; follow unfollow; block unblock; freeze thaw; ignore enforce; appear disappear; approve
reject; agree disagree; like dislike; trust distrust; known unknown; common rare; cheap expensive; near far; single
multiple; local remote; global local; online offline; active inactive; active passive; optional required; scale
shrink; publish retract
""")
REVERSING = ("un", "dis", "de", "in", "im", "ir", "il", "non", "anti", "mis", "a")
