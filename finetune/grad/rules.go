package grad

// rules holds the gradient of every operator that has one. Names without a domain are standard operators.
var rules map[string]rule

func init() {
	rules = map[string]rule{
		"Add": addRule, "Sub": subRule, "Mul": mulRule, "Div": divRule, "Pow": powRule,
		"Sum": sumRule, "Mean": meanRule, "Max": extremeRule("Less"), "Min": extremeRule("Greater"), "Where": whereRule, "PRelu": preluRule,

		"Identity": passRule, "Dropout": dropoutRule, "Cast": passRule, "CastLike": passRule, "Neg": negRule, "Abs": absRule,
		"Exp": expRule, "Log": logRule, "Sqrt": sqrtRule, "Reciprocal": reciprocalRule, "Erf": erfRule, "Sin": sinRule, "Cos": cosRule,
		"Tanh": tanhRule, "Sigmoid": sigmoidRule, "Relu": reluRule, "LeakyRelu": leakyReluRule, "Elu": eluRule,
		"Softplus": softplusRule, "HardSigmoid": hardSigmoidRule, "Clip": clipRule,

		"MatMul": matMulRule, "Gemm": gemmRule, "Conv": convRule,

		"Softmax": softmaxRule, "LogSoftmax": logSoftmaxRule, "LayerNormalization": layerNormRule,
		"BatchNormalization": batchNormRule, "InstanceNormalization": instanceNormRule,

		"ReduceSum": reduceSumRule, "ReduceMean": reduceMeanRule, "ReduceMax": reduceExtremeRule("Less"), "ReduceMin": reduceExtremeRule("Greater"),
		"ReduceSumSquare": reduceSumSquareRule, "ReduceL2": reduceL2Rule, "ReduceLogSumExp": reduceLogSumExpRule,

		"AveragePool": averagePoolRule, "GlobalAveragePool": globalAveragePoolRule, "MaxPool": maxPoolRule, "GlobalMaxPool": globalMaxPoolRule,

		"Reshape": reshapeRule, "Flatten": reshapeRule, "Squeeze": reshapeRule, "Unsqueeze": reshapeRule,
		"Transpose": transposeRule, "Expand": expandRule, "Tile": tileRule, "Slice": sliceRule, "Concat": concatRule, "Split": splitRule,
		"Pad": padRule, "Gather": gatherRule, "GatherElements": gatherElementsRule, "GatherND": gatherNDRule,
	}
}

// constant lists the operators whose derivative is zero, or whose outputs are no real numbers.
var constant = map[string]bool{
	"Shape": true, "Size": true, "Constant": true, "ConstantOfShape": true, "Range": true, "EyeLike": true, "NonZero": true,
	"ArgMax": true, "ArgMin": true, "OneHot": true, "Floor": true, "Ceil": true, "Round": true, "Sign": true,
	"Equal": true, "Less": true, "LessOrEqual": true, "Greater": true, "GreaterOrEqual": true,
	"And": true, "Or": true, "Xor": true, "Not": true, "IsNaN": true, "IsInf": true,
	"RandomNormal": true, "RandomUniform": true, "RandomNormalLike": true, "RandomUniformLike": true, "Bernoulli": true,
	"QuantizeLinear": true,
}
