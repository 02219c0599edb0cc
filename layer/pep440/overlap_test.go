package pep440

import "testing"

func TestOverlaps(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"", "", true},
		{"", ">=2", true},
		{"", "<0.dev0", false},
		{">=2", "<2", false},
		{">=2", "<=2", true},
		{">2", "<2.1", true},
		{">=1.0,<3.0", ">=2.5", true},
		{">=1.0,<3.0", ">=3", false},
		{"==2.0.3", ">=1.0,<3.0", true},
		{"==3.0.3", ">=1.0,<3.0", false},
		{"==2.*", "~=2.7", true},
		{"==2.*", ">=3", false},
		{"~=1.4.5", ">=1.5", false},
		{"~=1.4.5", ">1.4.5", true},
		{"!=1.4.*,>=1.4", "<1.5", false},
		{"!=1.4.*,>=1.4", "<1.6", true},
		{"!=1.4.*,>=1.4", "", true},
		{"!=1.9.*,>=1.9", "<2", true},
		{"<1.5,!=1.4.*", "", true},
		{"===1.0", "==1.0", true},
		{"===1.0", ">1.0", false},
		{"===anything", "", true},
		{"===anything", ">1", false},
		{">=1!1.0", ">=5", true},
		{">=1!1.0", "<5", false},
		{"==1.0", "!=1.0", false},
		{">=10,<11", "!=10", true},
		{">=20220101000000000000000000", "<20220101000000000000000001", true},
	} {
		a, err := ParseSpecifiers(tt.a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := ParseSpecifiers(tt.b)
		if err != nil {
			t.Fatal(err)
		}
		if a.Overlaps(b) != tt.want || b.Overlaps(a) != tt.want {
			t.Errorf("%q and %q: %t and %t, want %t", tt.a, tt.b, a.Overlaps(b), b.Overlaps(a), tt.want)
		}
	}
}
