package main

import (
	"strings"
	"testing"
)

// loop is what a kernel's machine code looks like: two groups of products by sums R24 to R55, which take turns with A, then a wait for all.
const loop = `
		Function : Wide
        /*0100*/                   LDS R68, [R84] ;                                           /* 0x0 */
        /*0110*/                   HGMMA.64x64x16.F32 R24, R68, gdesc[UR16], R24 ;            /* 0x0 */
        /*0120*/                   HGMMA.64x64x16.F32 R24, R72, gdesc[UR16], R24, gsb0 ;      /* 0x0 */
        /*0130*/                   WARPGROUP.DEPBAR.LE gsb0, 0x1 ;
        /*0140*/                   LDS.128 R84, [R90] ;
        /*0150*/                   HGMMA.64x64x16.F32 R24, R84, gdesc[UR16], R24, gsb0 ;
        /*0160*/                   WARPGROUP.DEPBAR.LE gsb0, 0x1 ;
        /*0170*/                   @!P2 SYNCS.ARRIVE.TRANS64.A1T0 RZ, [R84+URZ], RZ ;
        /*0180*/                   HMUL2 R69, R70, R71 ;
        /*0190*/                   ISETP.GT.AND P2, PT, R123, 0x1, PT ;
`

func TestCheck(t *testing.T) {
	const (
		wait   = "        /*0300*/ WARPGROUP.DEPBAR.LE gsb0, 0x0 ;\n"
		copied = "        /*0200*/ @P1 IMAD.MOV.U32 R68, RZ, RZ, R24 ;\n"
		others = "        /*0200*/ HGMMA.64x64x16.F32 R104, gdesc[UR20], !UPT, gsb0 ;\n        /*0210*/ WARPGROUP.DEPBAR.LE gsb0, 0x1 ;\n"
	)
	for name, test := range map[string]struct{ code, want string }{
		"sums after the wait":    {loop + wait + copied, ""},
		"sums before it":         {loop + copied + wait, "R24"},
		"sums overwritten":       {loop + "        /*0200*/ CS2R R54, SRZ ;\n" + wait, "R54"},
		"A is read":              {loop + "        /*0200*/ IADD3 R100, R84, R85, RZ ;\n" + wait, ""},
		"A overwritten":          {loop + "        /*0200*/ LDS R87, [R100] ;\n" + wait, "R87"},
		"A overwritten in part":  {loop + "        /*0200*/ LDG.E.128.CONSTANT R84, desc[UR8][R58.64] ;\n" + wait, "R84"},
		"of two groups ago":      {loop + "        /*0200*/ LDS R75, [R100] ;\n" + wait, ""},
		"with a predicate first": {loop + "        /*0200*/ IADD3 P3, PT, R86, R1, R2, RZ ;\n" + wait, "R86"},
		"sums of a group ended":  {loop + others + copied + wait, ""},
		"sums of another":        {loop + others + "        /*0220*/ FMUL R2, R104, R3 ;\n" + wait, "R104"},
		"the next kernel":        {loop + "\n\t\tFunction : Other\n" + copied, ""},
	} {
		kernels, touches := check(strings.NewReader(test.code))
		if kernels != 1 {
			t.Errorf("%s: %d kernels, want 1", name, kernels)
		}
		if got := strings.Join(touches, "\n"); (test.want == "") != (got == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: touched by %q, want %q", name, got, test.want)
		}
	}
}

func TestRunWantsProducts(t *testing.T) {
	if err := run("true", []string{"x.o"}, &strings.Builder{}); err == nil || !strings.Contains(err.Error(), "x.o") {
		t.Errorf("an object without products: %v", err)
	}
}
