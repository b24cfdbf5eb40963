// The C interface of the encoder.

#include <exception>
#include <memory>
#include <string>

#include "cosetq/cosetq.h"
#include "cpu/dispatch.h"
#include "cpu/encode.h"

struct cosetq_encoder {
  std::unique_ptr<cosetq::Encoder> encoder;
};

extern "C" struct cosetq_encoder* cosetq_encoder_create(const struct cosetq_codec* codec,
                                                        const int32_t* leaders) {
  try {
    std::string error;
    if (codec == nullptr || !cosetq::SelectIsaFromEnvironment(&error)) return nullptr;
    auto encoder = cosetq::Encoder::Create(*codec, leaders);
    return encoder == nullptr ? nullptr : new cosetq_encoder{std::move(encoder)};
  } catch (const std::exception&) {
    return nullptr;
  }
}

extern "C" void cosetq_encoder_free(struct cosetq_encoder* encoder) { delete encoder; }

extern "C" int64_t cosetq_encode(const struct cosetq_encoder* encoder, const float* rows,
                                 int64_t groups, const int32_t* at, const float* steps,
                                 int64_t count, double* sse, uint16_t* indices, uint8_t* gains) {
  return encoder->encoder->Encode({rows, groups, at, steps, count, sse, indices, gains});
}

extern "C" void cosetq_encode_in_metric(const struct cosetq_encoder* encoder, const float* x,
                                        const float* steps, const float* metric, int64_t count,
                                        uint16_t* indices, uint8_t* gains, float* weights,
                                        float* losses) {
  encoder->encoder->EncodeInMetric({x, steps, metric, count, indices, gains, weights, losses});
}
